package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor"
)

// checkUserNamespaces starts a child in a user namespace of its own, as every
// sandbox is.
func checkUserNamespaces(context.Context) []check {
	const name = "user namespace"
	if err := gvisor.CheckMachine(); err != nil {
		return []check{fail(name, fmt.Sprintf("cannot be made: %v", err), userNamespaceFix(err, chrooted()))}
	}
	return []check{pass(name, "can be made")}
}

// checkMachine fails where the first session would fail, as `doctor` does.
func (s *server) checkMachine(context.Context) (func() error, error) {
	if err := gvisor.CheckMachine(); err != nil {
		return nil, withHint(fmt.Errorf("start AgentCube: %w: user namespace cannot be made: %w", sandbox.ErrNotAllowed, err),
			userNamespaceFix(err, chrooted())+"; `agentcube doctor` checks the rest")
	}
	return nil, nil
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
