package gvisor

import (
	"errors"
	"syscall"
	"testing"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// TestForbiddenIsTold: a machine that lets no sandbox be made is told from one
// that is short of something.
func TestForbiddenIsTold(t *testing.T) {
	cause := errors.New("starting sandbox: fork/exec /proc/self/exe: operation not permitted")
	err := notMade(cause, func() error { return syscall.EPERM })
	for _, want := range []error{sandbox.ErrNotAllowed, syscall.EPERM, cause} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not %v", err, want)
		}
	}
	if err := notMade(cause, func() error { return nil }); !errors.Is(err, cause) || errors.Is(err, sandbox.ErrNotAllowed) {
		t.Errorf("where sandboxes are allowed: %v", err)
	}
}

// TestMachineIsChecked: the other tests of this package make sandboxes here, so
// here they are allowed.
func TestMachineIsChecked(t *testing.T) {
	if err := CheckMachine(); err != nil {
		t.Errorf("CheckMachine: %v", err)
	}
}
