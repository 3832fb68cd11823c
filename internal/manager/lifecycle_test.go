package manager_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

func TestIdleSessionEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].IdleTimeout = 100 * time.Millisecond
	n := w.start()
	id := n.create().SessionID
	rec := w.eventuallyEnded(id, api.FateIdle)
	if idle := rec.EndedAt.Sub(rec.LastActivity); idle < rec.IdleTimeout {
		t.Errorf("ended after %v without a request, want at least %v", idle, rec.IdleTimeout)
	}
}

func TestBusySessionStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const idle = 300 * time.Millisecond
	w.templates[0].IdleTimeout = idle
	n := w.start()
	id := n.create().SessionID
	type touch struct{ at, done time.Time }
	var touches []touch
	for start := time.Now(); time.Since(start) < 3*idle; time.Sleep(idle / 20) {
		at := time.Now()
		if err := w.store.Touch(t.Context(), id, at); err != nil {
			t.Fatal(err)
		}
		touches = append(touches, touch{at, time.Now()})
	}
	// A slow machine may have let more than idle pass between two touches.
	rec := w.record(id)
	for _, one := range touches {
		if rec.Ended() && one.done.Before(rec.EndedAt) && rec.EndedAt.Sub(one.at) < idle {
			t.Errorf("ended %v after activity", rec.EndedAt.Sub(one.at))
		}
	}
	w.eventuallyEnded(id, api.FateIdle)
}

// TestUsedAtTheLastMoment: a request that comes between the finding of an idle
// session and its end saves it.
func TestUsedAtTheLastMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].IdleTimeout = 50 * time.Millisecond
	saved := make(chan time.Time, 1)
	w.wrapStore = func(s manager.Store) manager.Store { return &lateTouch{Store: s, saved: saved} }
	n := w.start()
	id := n.create().SessionID
	at := <-saved
	rec := w.eventuallyEnded(id, api.FateIdle)
	if rec.LastActivity.Before(at) || rec.EndedAt.Sub(at) < rec.IdleTimeout {
		t.Errorf("ended %v after the request that should have saved it for %v", rec.EndedAt.Sub(at), rec.IdleTimeout)
	}
}

// lateTouch uses the first session that is found to be due.
type lateTouch struct {
	manager.Store
	saved chan time.Time
	done  bool // Due is called by one goroutine
}

func (l *lateTouch) Due(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	due, err := l.Store.Due(ctx, now, limit)
	if len(due) > 0 && !l.done {
		l.done = true
		at := time.Now().UTC()
		err = errors.Join(err, l.Touch(ctx, due[0].ID, at))
		l.saved <- at
	}
	return due, err
}

func TestOldSessionEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].MaxDuration = 150 * time.Millisecond
	n := w.start()
	id := n.create().SessionID
	rec := w.eventuallyEnded(id, api.FateExpired)
	if rec.EndedAt.Before(rec.ExpiresAt) {
		t.Errorf("ended at %v, before %v", rec.EndedAt, rec.ExpiresAt)
	}
}

// TestSlowCreationIsNotIdle: the idle clock does not run while the session is
// being made (W-K13).
func TestSlowCreationIsNotIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].IdleTimeout = 100 * time.Millisecond
	w.hooks.Create = func(context.Context, sandbox.Spec) error {
		time.Sleep(300 * time.Millisecond)
		return nil
	}
	n := w.start()
	id := n.create().SessionID
	rec := w.eventuallyEnded(id, api.FateIdle)
	if rec.LastActivity.Sub(rec.CreatedAt) < 300*time.Millisecond {
		t.Errorf("the idle clock began %v after the request", rec.LastActivity.Sub(rec.CreatedAt))
	}
}

func TestSandboxExits(t *testing.T) {
	t.Parallel()
	for reason, fate := range map[sandbox.ExitReason]api.Fate{
		sandbox.ExitOutOfMemory: api.FateOutOfMemory,
		sandbox.ExitStopped:     api.FateFailed,
		sandbox.ExitLost:        api.FateHostLost,
	} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n := w.start()
			out := n.create()
			if err := w.host.Exit(out.SandboxID, reason, "by the test"); err != nil {
				t.Fatal(err)
			}
			w.eventuallyEnded(out.SessionID, fate)
		})
	}
}

// TestRemovalIsRetried: a sandbox that cannot be removed at once is removed
// later; the session is over from the start.
func TestRemovalIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.MaxSandboxes = 1 }
	var free atomic.Bool
	w.hooks.Delete = func(context.Context, string) error {
		if !free.Load() {
			return errors.New("device busy")
		}
		return nil
	}
	n := w.start()
	id := n.create().SessionID
	if got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, ""); got.status != 200 || !w.record(id).Ended() {
		t.Errorf("delete = %d %s", got.status, got.body)
	}
	if got := n.do(t.Context(), "alice", "POST", createPath, createBody); got.status != 429 {
		t.Errorf("create while the sandbox is still there = %d, want 429", got.status)
	}
	free.Store(true)
	w.eventuallyEnded(id, api.FateDeleted)
	w.eventually("room again", func() bool {
		return n.do(t.Context(), "alice", "POST", createPath, createBody).status == 200
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.Retention = 50 * time.Millisecond }
	n := w.start()
	id := n.create().SessionID
	keep := n.create().SessionID
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, "")
	w.eventually("record purged", func() bool {
		_, err := w.store.Get(t.Context(), id)
		return errors.Is(err, session.ErrNotFound)
	})
	if rec := w.record(keep); rec.Ended() {
		t.Errorf("the living session has ended: %+v", rec)
	}
}

func TestCloseEndsSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.KeepSessions = false }
	n := w.start()
	ids := []string{n.create().SessionID, n.create().SessionID}
	n.stop()
	if err := n.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, id := range ids {
		w.eventuallyEnded(id, api.FateHostLost)
	}
}

func TestCloseKeepsSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	id := n.create().SessionID
	n.stop()
	if err := n.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if rec := w.record(id); rec.State != api.StateRunning || len(w.host.IDs()) != 1 {
		t.Errorf("state %q and sandboxes %q, want it running", rec.State, w.host.IDs())
	}
}

// TestSessionChanged: the Router hears of every change, in the order of states.
func TestSessionChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	heard := make(chan session.Session, 16)
	w.config = func(c *manager.Config) { c.SessionChanged = func(s session.Session) { heard <- s } }
	n := w.start()
	id := n.create().SessionID
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, "")
	for _, want := range []api.State{api.StateRunning, api.StateEnded} {
		if got := <-heard; got.ID != id || got.State != want {
			t.Errorf("heard of %s %q, want %s %q", got.ID, got.State, id, want)
		}
	}
}
