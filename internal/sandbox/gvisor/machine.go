package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// CheckMachine returns nil when a process can be started in a user namespace of
// its own, which every sandbox is. Otherwise the error is what the kernel said.
// It takes about a millisecond, and what it starts is gone when it returns.
func CheckMachine() error {
	// Once the program runs it can be ended there and then: what it does there
	// does not matter. It gets no files, not even /dev/null, which a bare chroot
	// does not have.
	p, err := os.StartProcess("/proc/self/exe", []string{"agentcube", "version"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		},
	})
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			return path.Err
		}
		return err
	}
	_ = p.Kill()
	_, err = p.Wait()
	return err
}

// notMade is the error of a sandbox that gVisor could not make. It matches
// sandbox.ErrNotAllowed where the machine would let none be made: of why a process
// could not be started gVisor leaves no more than a text.
func notMade(err error, check func() error) error {
	if forbidden := check(); forbidden != nil {
		return fmt.Errorf("%w: user namespace: %w: %w", sandbox.ErrNotAllowed, forbidden, err)
	}
	return err
}
