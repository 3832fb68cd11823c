package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// TestStandby: processes that wait for what comes next are few, are used, and go
// with the server, whether it stops or is killed.
func TestStandby(t *testing.T) {
	t.Parallel()
	srv := newServer(t, "--standby", "1")
	srv.prepare(t, "small")
	c := srv.client(t)
	awaitRuns(t, srv, 1)
	if n := len(srv.entries("runs")); n != 1 {
		t.Errorf("%d processes wait, want 1", n)
	}
	waiting := srv.entries("runs")[0]
	s := create(t, c, client.CreateOptions{Template: "small", Managed: true})
	if run := srv.runOf(t, s.ID); run != waiting {
		t.Errorf("the session runs in %s, and %s was waiting", run, waiting)
	}
	if got := output(t, s, "hostname"); got == "sandbox\n" || got == "" {
		t.Errorf("host name %q", got)
	}
	before := output(t, s, "hostname; echo kept > file")
	pause(t, s)
	awaitRuns(t, srv, 1) // the one for its waking
	if got := output(t, s, "hostname; cat file"); got != before+"kept\n" {
		t.Errorf("after waking: %q, before: %q", got, before)
	}
	discard(t, s)
	awaitRuns(t, srv, 1)
	if err := srv.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	srv.restart(t)
	awaitRuns(t, srv, 0)
}

func awaitRuns(t *testing.T, srv *server, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(srv.entries("runs")) != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there are the processes %v, want %d", srv.entries("runs"), want)
		}
	}
}
