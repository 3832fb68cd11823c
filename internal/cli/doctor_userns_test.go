package cli

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestUserNamespaceFixNamesTheCause(t *testing.T) {
	for _, tt := range []struct {
		err      error
		chrooted bool
		want     string
	}{
		{syscall.ENOSPC, false, "user.max_user_namespaces"},
		{syscall.EINVAL, false, "CONFIG_USER_NS"},
		{syscall.EPERM, true, "chroot"},
		{fmt.Errorf("start: %w", syscall.EPERM), false, "security module"},
		{syscall.EIO, false, "--privileged"},
	} {
		if got := userNamespaceFix(tt.err, tt.chrooted); !strings.Contains(got, tt.want) {
			t.Errorf("fix for %v (chroot %t): %q does not name %q", tt.err, tt.chrooted, got, tt.want)
		}
	}
	if chrooted() {
		t.Error("the test runs in no chroot")
	}
}
