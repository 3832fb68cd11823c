package sentry

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCloseStrangers: of the sockets that a process finds open it keeps those that its
// arguments name, and of other files all. It takes a process of its own, as it
// closes what it does not know.
func TestCloseStrangers(t *testing.T) {
	const variable = "AGENTCUBE_TEST_STRANGERS"
	if args := os.Getenv(variable); args != "" {
		if err := CloseStrangers(strings.Fields(args)); err != nil {
			fmt.Println(err)
		}
		for fd := 3; fd < 6; fd++ {
			if file, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
				kind, _, _ := strings.Cut(file, ":")
				fmt.Printf("left %d %s\n", fd, kind)
			}
		}
		return
	}
	socket := func() *os.File {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	mine, strange := socket(), socket()
	defer mine.Close()
	defer strange.Close()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	for args, want := range map[string]string{
		"boot --setup-root --controller-fd=3": "left 3 socket\nleft 5 pipe\n",
		"boot --controller-fd=3":              "left 3 socket\nleft 4 socket\nleft 5 pipe\n", // it has done so before
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCloseStrangers$")
		cmd.Env = append(os.Environ(), variable+"="+args)
		cmd.ExtraFiles = []*os.File{mine, strange, in}
		got, err := cmd.CombinedOutput()
		if text, _, found := strings.Cut(string(got), "PASS\n"); err != nil || !found || text != want {
			t.Errorf("%s: %v\n%s", args, err, got)
		}
	}
}
