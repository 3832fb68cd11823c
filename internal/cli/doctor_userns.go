package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// checkUserNamespaces starts a child in a user namespace of its own, as every
// sandbox is.
func checkUserNamespaces(context.Context) []check {
	const name = "user namespace"
	if err := enterUserNamespace(); err != nil {
		return []check{fail(name, fmt.Sprintf("cannot be made: %v", err), userNamespaceFix(err, chrooted()))}
	}
	return []check{pass(name, "can be made")}
}

// enterUserNamespace returns once a program runs in a new namespace, and ends it
// there and then: what it does there does not matter. It gets no files, not
// even /dev/null, which a bare chroot does not have.
func enterUserNamespace() error {
	p, err := os.StartProcess("/proc/self/exe", []string{"agentcube", "version"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		},
	})
	if err != nil {
		return reason(err)
	}
	_ = p.Kill()
	_, err = p.Wait()
	return err
}

// userNamespaceFix says what to do about what the kernel said.
func userNamespaceFix(err error, chrooted bool) string {
	const elsewhere = "run AgentCube on the machine itself, or in a container that may make them (docker run --privileged)"
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the kernel allows no more of them: raise the setting, sysctl -w user.max_user_namespaces=15000"
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		return "the kernel has none, it needs CONFIG_USER_NS, or a container hides them: " + elsewhere
	case chrooted:
		return "this is a chroot, in which the kernel allows none: " + elsewhere
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "a container, a chroot or a security module forbids it: " + elsewhere +
			"; see also sysctl kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
	}
	return elsewhere
}

// chrooted reports whether this process sees another root than the one that is
// mounted: then the mounts that the kernel shows it do not include a root.
func chrooted() bool {
	data, err := readBounded("/proc/self/mountinfo", 4<<20)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/" {
			return false
		}
	}
	return true
}
