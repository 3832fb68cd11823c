package gvisor

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/agent"
)

func TestMain(m *testing.M) {
	if IsReexec(os.Args) {
		if err := ReexecMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if os.Getenv(crashEnv) != "" {
		// It will be killed, and detaches its files itself.
		os.Exit(m.Run())
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ac")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// One place for all drivers of these tests, whose folders come and go.
	if err := agent.InstallSentry(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Tests print, so that they cannot use DetachStdio. Their output is a pipe
	// or a file; it is their input that can be the machine's /dev/null.
	null, err := nullDevice(dir)
	if err == nil {
		err = unix.Dup3(int(null.Fd()), 0, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
