// Command pause keeps a Pod's namespaces: it does nothing until it is told to
// end, and buries processes that nobody else waits for. It says on which kernel
// it runs, at its start and, with the argument `kernel`, instead of waiting, so
// that it also serves as a container that tests can look into.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		fmt.Fprintf(os.Stderr, "pause: read kernel's name: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("kernel %s\n", text(name.Release))
	if len(os.Args) > 1 && os.Args[1] == "kernel" {
		return
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for got := range signals {
		if got != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}

// text is what is before the first zero.
func text(field [65]int8) string {
	var out []byte
	for _, c := range field {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return string(out)
}
