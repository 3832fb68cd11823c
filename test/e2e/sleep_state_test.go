package e2e

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// TestStateSurvivesSleep: a session with a data frame, an open file, counters
// in a thread and in a process behind pipes and 200 MiB of random bytes is
// paused and resumed time and again, also when the server is killed before or
// after, and goes on where it was each time. Ten forks of it then go their own
// ways.
func TestStateSurvivesSleep(t *testing.T) {
	t.Parallel()
	const mib, forks = 200, 10
	srv := newServer(t)
	srv.prepare(t, "keeper")
	base := srv.census()
	c := srv.client(t)
	k := newKeeper(t, c, mib)
	s := k.s
	for i := range env.pauses {
		switch i % 5 {
		case 1: // killed while the session sleeps
			pause(t, s)
			srv.kill(t)
			srv.restart(t)
			wantState(t, c, s.ID, api.StatePaused)
		case 3: // killed while the session runs
			srv.kill(t)
			srv.restart(t)
			wantState(t, c, s.ID, api.StateRunning)
			pause(t, s)
		default:
			pause(t, s)
			if i%2 == 0 {
				if err := s.Resume(t.Context()); err != nil {
					t.Fatal(err)
				}
				wantState(t, c, s.ID, api.StateRunning)
			}
		}
		k.same(t) // wakes it
		if t.Failed() {
			t.Fatalf("after %d pauses", i+1)
		}
	}
	copies := k.fork(t, forks)
	wantDiverging(t, c, k, copies)
	for _, f := range append(copies, k) {
		discard(t, f.s)
	}
	c.Close()
	srv.settled(t, base)
	srv.empty(t)
}

// fork makes copies of the session.
func (k *keeper) fork(t *testing.T, count int) (all []*keeper) {
	t.Helper()
	keys := make([]*rsa.PrivateKey, count)
	for i := range keys {
		var err error
		if keys[i], err = client.NewKey(); err != nil {
			t.Fatal(err)
		}
	}
	copies, err := k.s.Fork(t.Context(), count, client.ForkOptions{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range copies {
		t.Cleanup(func() { discard(t, s) })
		all = append(all, &keeper{s: s, key: keys[i], secret: k.secret, last: k.last})
	}
	return all
}

// wantDiverging checks that forks begin as their parent was, and have nothing
// in common with it or one another from then on.
func wantDiverging(t *testing.T, c *client.Client, parent *keeper, forks []*keeper) {
	t.Helper()
	all := append([]*keeper{parent}, forks...)
	own := map[string]int{}
	for i, k := range all {
		k.same(t)
		rec, err := c.GetSession(t.Context(), k.s.ID)
		if err != nil || rec.State != api.StateRunning || i > 0 && rec.Parent != parent.s.ID {
			t.Errorf("session %d is %+v, %v; its parent is %s", i, rec, err, parent.s.ID)
		}
		wantOwn(t, k.s, i, own)
		k.last = k.ask(t, fmt.Sprintf("note-of-%d", i))
		output(t, k.s, fmt.Sprintf("echo %d > own", i))
	}
	for i, k := range all {
		k.same(t)
		if want := []string{fmt.Sprintf("note-of-%d", i)}; !slices.Equal(k.last.Notes, want) {
			t.Errorf("session %d was told %v, want %v", i, k.last.Notes, want)
		}
		if got := output(t, k.s, "cat own"); got != fmt.Sprintf("%d\n", i) {
			t.Errorf("session %d holds what %q wrote", i, got)
		}
		for j, other := range all {
			stranger, err := c.Attach(t.Context(), k.s.ID, other.key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = stranger.ListFiles(t.Context(), ""); i == j && err != nil || i != j && !errors.Is(err, client.ErrUnauthorized) {
				t.Errorf("session %d with the key of %d: %v", i, j, err)
			}
		}
	}
}

// wantOwn checks that what identifies a session, or is random in it, is that of
// no other. own holds what was seen so far, and in which session.
func wantOwn(t *testing.T, s *client.Session, i int, own map[string]int) {
	t.Helper()
	for _, value := range strings.Fields(output(t, s, "hostname; cat /etc/machine-id; head -c 16 /dev/urandom | base64; "+
		"python3 -c 'import os, random, numpy, uuid; print(random.random(), numpy.random.rand(), uuid.uuid4(), os.urandom(8).hex(), sep=chr(10))'")) {
		if other, taken := own[value]; taken {
			t.Errorf("sessions %d and %d both have %q", other, i, value)
		}
		own[value] = i
	}
	if n := len(own); n != 7*(i+1) {
		t.Errorf("%d sessions have %d values of their own, want 7 each", i+1, n)
	}
}

func pause(t *testing.T, s *client.Session) {
	t.Helper()
	if err := s.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantState(t *testing.T, c *client.Client, id string, want api.State) {
	t.Helper()
	if rec, err := c.GetSession(t.Context(), id); err != nil || rec.State != want {
		t.Errorf("the session is %+v, %v; want %s", rec, err, want)
	}
}
