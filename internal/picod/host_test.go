package picod

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/hostlink"
)

// newLine makes a line as a sandbox has it: PicoD's ends do not block.
func newLine(t *testing.T) (ours, theirs hostlink.Files) {
	t.Helper()
	ours, theirs, err := hostlink.NewFiles()
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range theirs {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		theirs[i] = os.NewFile(uintptr(fd), "host line")
	}
	return ours, theirs
}

// otherEnds is a new host's ends of a line, of which the former are closed.
func otherEnds(t *testing.T, theirs hostlink.Files) (ours hostlink.Files) {
	t.Helper()
	for i, f := range theirs {
		mode := os.O_WRONLY // what they read, we write
		if i%2 == 1 {
			mode = os.O_RDONLY
		}
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			ours[i^1], err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), mode|unix.O_NONBLOCK, 0)
		}); err != nil || ours[i^1] == nil {
			t.Fatalf("open the other end: %v", err)
		}
	}
	return ours
}

// TestBaseIsWatchedForEachSnapshot: a sandbox is restored again and again, and
// each time AgentCube has come back as a new process before, which attaches a
// line of its own. What is restored finds its host on the base line every time.
func TestBaseIsWatchedForEachSnapshot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), guard/3)
	defer cancel()
	host, base := newLine(t)
	srv := start(t, nil).srv
	srv.cfg.Host = &base
	h, err := srv.startHost(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	_ = host.Close() // the first host is gone
	for round := range 3 {
		ours, theirs := newLine(t)
		h.wg.Go(func() { h.serveControl(theirs) })
		attached := hostlink.NewControl(ours.Control())
		if err := attached.Call(ctx, hostlink.Request{Op: hostlink.OpPrepare}); err != nil {
			t.Fatalf("round %d: prepare: %v", round, err)
		}
		// In what is restored this line is gone, and a host is at the base.
		_, _ = ours.Close(), theirs.Close()
		ours = otherEnds(t, base)
		restored := hostlink.NewControl(ours.Control())
		if err := restored.Call(ctx, hostlink.Request{Op: hostlink.OpPrepare}); err != nil {
			t.Fatalf("round %d: nobody serves the base line: %v", round, err)
		}
		_ = ours.Close()
	}
}

// TestIdentityOnFirstLine: a program that is root in the sandbox can attach a line;
// it must not become the host by which PicoD forgets its session's key.
func TestIdentityOnFirstLine(t *testing.T) {
	host, base := newLine(t)
	srv := start(t, nil).srv
	srv.cfg.Host = &base
	h, err := srv.startHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	defer host.Close()
	ours, theirs := newLine(t)
	defer ours.Close()
	defer theirs.Close()
	h.wg.Go(func() { h.serveControl(theirs) })
	attached := hostlink.NewControl(ours.Control())
	err = attached.Call(t.Context(), hostlink.Request{Op: hostlink.OpAssume, Identity: &hostlink.Identity{SandboxID: "mine"}})
	if err == nil || !strings.Contains(err.Error(), "first line") {
		t.Errorf("assume on a line that was attached: %v", err)
	}
	if id := srv.gate.SandboxID(); id == "mine" {
		t.Error("the sandbox has become another one")
	}
	_ = attached.Close()
}
