package gvisor

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if IsReexec(os.Args) {
		ReexecMain()
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ac")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// The tests' own output stays where it was.
	stdout, stderr, err := DetachStdio(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Stdout, os.Stderr = stdout, stderr
	return m.Run()
}
