package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// TestKilledServer kills the server, as kill -9 does, at every state of
// a session, starts it again, and checks what became of the session and that
// nothing is left once it is deleted.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	// One session makes what stays, such as the parent control group.
	discard(t, create(t, c, client.CreateOptions{}))
	base := srv.census()
	for _, tt := range []struct {
		name string
		test func(t *testing.T, srv *server, c *client.Client)
	}{
		{"creating", killWhileCreating},
		{"running", killWhileRunning},
		{"executing", killWhileExecuting},
		{"deleting", killWhileDeleting},
		{"sandbox gone too", killWithSandbox},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.test(t, srv, c)
			c.Close()
			srv.settled(t, base)
			srv.empty(t)
		})
	}
}

// killWhileCreating kills at several moments of a creation: before it begins
// on the disk, and while the sandbox starts.
func killWhileCreating(t *testing.T, srv *server, c *client.Client) {
	for _, after := range []time.Duration{0, 10, 30, 60, 100, 150} {
		done := make(chan error, 1)
		go func() {
			_, err := c.CreateSession(context.WithoutCancel(t.Context()), client.CreateOptions{})
			done <- err
		}()
		for deadline := time.Now().Add(patience); len(done) == 0 && time.Now().Before(deadline); {
			if len(srv.entries("runs")) > 0 {
				break
			}
		}
		time.Sleep(after * time.Millisecond)
		srv.kill(t)
		<-done
		srv.restart(t)
		list, err := c.ListSessions(t.Context(), client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range list.Sessions {
			switch rec.State {
			case api.StatePending:
				t.Errorf("killed after %d ms: session %s is still pending", after, rec.SessionID)
			case api.StateRunning: // it was finished; nobody knows its key
				if err := c.DeleteSession(t.Context(), rec.SessionID); err != nil {
					t.Error(err)
				}
			}
		}
		for deadline := time.Now().Add(patience); len(srv.sandboxes()) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("killed after %d ms: the sandbox goes on", after)
			}
		}
	}
}

func killWhileRunning(t *testing.T, srv *server, c *client.Client) {
	bound := create(t, c, client.CreateOptions{})
	managed := create(t, c, client.CreateOptions{Managed: true})
	for _, s := range []*client.Session{bound, managed} {
		output(t, s, "echo kept > file; (while sleep 0.1; do date >> ticks; done) >/dev/null 2>&1 & echo $! > pid")
	}
	srv.kill(t)
	srv.restart(t)
	for _, s := range []*client.Session{bound, managed} {
		if got := output(t, s, "cat file; kill -0 $(cat pid) && echo alive; n=$(wc -l < ticks); while [ $(wc -l < ticks) = $n ]; do sleep 0.1; done; echo ticking"); got != "kept\nalive\nticking\n" {
			t.Errorf("after the restart: %q", got)
		}
		rec, err := c.GetSession(t.Context(), s.ID)
		if err != nil || rec.State != api.StateRunning {
			t.Errorf("after the restart the session is %+v, %v", rec, err)
		}
	}
	for _, s := range []*client.Session{bound, managed} {
		discard(t, s)
		wantGone(t, s, api.FateDeleted)
	}
}

func killWhileExecuting(t *testing.T, srv *server, c *client.Client) {
	s := create(t, c, client.CreateOptions{})
	done := make(chan error, 1)
	go func() {
		_, err := s.Execute(context.WithoutCancel(t.Context()), client.ExecRequest{
			Command: []string{"bash", "-c", "touch started; sleep 4321"}, Timeout: time.Hour})
		done <- err
	}()
	awaitFile(t, s, "started")
	srv.kill(t)
	if err := <-done; err == nil {
		t.Error("a command went on without a server")
	}
	srv.restart(t)
	// Nobody waits for the command any more, so it ends; the session does not.
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if output(t, s, "ls; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 432[1]' || true") == "started\n0\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command goes on though its client is gone")
		}
	}
	discard(t, s)
	wantGone(t, s, api.FateDeleted)
}

func killWhileDeleting(t *testing.T, srv *server, c *client.Client) {
	for _, after := range []time.Duration{0, 2, 5, 10, 20, 50} {
		s := create(t, c, client.CreateOptions{})
		done := make(chan error, 1)
		go func() { done <- c.DeleteSession(context.WithoutCancel(t.Context()), s.ID) }()
		time.Sleep(after * time.Millisecond)
		srv.kill(t)
		<-done
		srv.restart(t)
		rec, err := c.GetSession(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case rec.State == api.StateRunning: // the wish did not arrive
			output(t, s, "true")
			discard(t, s)
		case rec.State != api.StateEnded || rec.Fate != api.FateDeleted:
			t.Errorf("killed after %d ms: session is %+v", after, rec)
		}
		wantGone(t, s, api.FateDeleted)
	}
}

func killWithSandbox(t *testing.T, srv *server, c *client.Client) {
	lost := create(t, c, client.CreateOptions{})
	sandboxes := srv.sandboxes()
	kept := create(t, c, client.CreateOptions{})
	if len(sandboxes) != 1 {
		t.Fatalf("one session has sandboxes %v", sandboxes)
	}
	srv.kill(t)
	if err := syscall.Kill(sandboxes[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); alive(sandboxes[0]); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the sandbox does not end")
		}
	}
	srv.restart(t)
	wantGone(t, lost, api.FateHostLost)
	output(t, kept, "true")
	discard(t, kept)
}

// alive tells whether a process has not ended; one that only waits to be
// collected has.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
