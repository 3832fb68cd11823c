// Command pause keeps a Pod's namespaces: it does nothing until it is told to
// end, and buries processes that nobody else waits for.
//
// It also serves as a container that tests can look into: at its start and, with
// the argument `kernel`, instead of waiting it says on which kernel it runs, and
// with `dial HOST:PORT` whether it gets a connection there.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "dial" {
		dial(os.Args[2])
		return
	}
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		fmt.Fprintf(os.Stderr, "pause: read kernel's name: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("kernel %s\n", text(name.Release))
	if len(os.Args) == 2 && os.Args[1] == "kernel" {
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

func dial(address string) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	conn.Close()
	fmt.Println("connected")
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
