package manager_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/session"
)

// machineClock is a machine whose clock can be set, and on which time passes
// when the test says so.
type machineClock struct {
	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
}

func (c *machineClock) read() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall, c.elapsed
}

func (c *machineClock) now() time.Time { wall, _ := c.read(); return wall }

// pass lets time go on.
func (c *machineClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.elapsed = c.wall.Add(d), c.elapsed+d
}

// set sets the machine's clock.
func (c *machineClock) set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(by)
}

// looks counts how often a Manager has looked for what is over.
type looks struct {
	manager.Store
	due, purge atomic.Int32
}

func (l *looks) Due(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	defer l.due.Add(1)
	return l.Store.Due(ctx, now, limit)
}

func (l *looks) Purge(ctx context.Context, endedBefore time.Time) (int, error) {
	defer l.purge.Add(1)
	return l.Store.Purge(ctx, endedBefore)
}

// timed is a world on a machine whose clock the test sets.
type timed struct {
	*world
	clock *machineClock
	looks *looks
	jumps atomic.Int32 // told in the log
}

const (
	timedRetention  = 50 * time.Millisecond // which is also how often purges come
	timedCheckpoint = time.Hour
)

func newTimed(t *testing.T) *timed {
	w := &timed{world: newWorld(t), clock: &machineClock{wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	w.templates = append(w.templates, python("dozing"))
	w.templates[1].PauseAfter = time.Minute
	w.wrapStore = func(s manager.Store) manager.Store { w.looks = &looks{Store: s}; return w.looks }
	w.config = func(c *manager.Config) {
		c.Clock = session.NewClockOf(w.clock.read)
		c.Retention, c.CheckpointRetention = timedRetention, timedCheckpoint
		c.Logger = slog.New(&jumpCounter{Handler: slog.DiscardHandler, n: &w.jumps})
	}
	return w
}

// jumpCounter counts what is said of the clock.
type jumpCounter struct {
	slog.Handler
	n *atomic.Int32
}

func (*jumpCounter) Enabled(context.Context, slog.Level) bool { return true }

func (j *jumpCounter) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "clock was set") {
		j.n.Add(1)
	}
	return nil
}

// looked waits until the Manager has looked for what is over since now.
func (w *timed) looked() {
	w.t.Helper()
	due, purge := w.looks.due.Load()+2, w.looks.purge.Load()+2
	w.eventually("looked", func() bool { return w.looks.due.Load() >= due && w.looks.purge.Load() >= purge })
}

// remaining is how long a session has to live, as its owner is told.
func (w *timed) remaining(n *node, id string) time.Duration {
	w.t.Helper()
	var s api.Session
	n.do(w.t.Context(), "alice", "GET", "/v1/sessions/"+id, "").decode(w.t, &s)
	return s.ExpiresAt.Sub(w.clock.now())
}

func (w *timed) wantState(what, id string, want api.State) {
	w.t.Helper()
	if got := w.record(id).State; got != want {
		w.t.Errorf("%s is %s, want %s", what, got, want)
	}
}

// TestClockIsSet: a session keeps the time that it has left, whatever becomes of
// the machine's clock. Sessions ended, all at once, when it was set forward.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{
		"forward": 9 * time.Hour, "back": -9 * time.Hour, "months forward": 2000 * time.Hour, "months back": -2000 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTimed(t)
			n := w.start()
			dozing := n.do(t.Context(), "alice", "POST", createPath, `{"name":"dozing","namespace":"default"}`)
			var idling api.CreateResponse
			dozing.decode(t, &idling)
			w.clock.pass(2 * time.Minute)
			w.eventually("dozing", func() bool { return w.record(idling.SessionID).State == api.StatePaused })
			running, asleep, over := n.create(), n.create(), n.create()
			n.must(asleep.SessionID, "pause")
			if got := n.do(t.Context(), "alice", "POST", "/v1/sessions/"+running.SessionID+"/checkpoints", `{"name":"kept"}`); got.status != 200 {
				t.Fatalf("checkpoint = %d %s", got.status, got.body)
			}
			n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+over.SessionID, "")

			w.clock.set(jump)
			w.looked()
			if got := w.jumps.Load(); got != 1 {
				t.Errorf("the jump was logged %d times, want once", got)
			}
			late := n.create() // as all others are, or are not, in the time of before
			w.clock.pass(12 * time.Minute)
			w.looked()
			w.wantState("what runs", running.SessionID, api.StateRunning)
			w.wantState("what was created after the jump", late.SessionID, api.StateRunning)
			w.wantState("what sleeps by itself", idling.SessionID, api.StatePaused)
			w.wantState("what its owner paused", asleep.SessionID, api.StatePaused)
			for id, want := range map[string]time.Duration{
				running.SessionID: 8*time.Hour - 12*time.Minute, late.SessionID: 8*time.Hour - 12*time.Minute,
				idling.SessionID: 8*time.Hour - 14*time.Minute,
			} {
				if got := w.remaining(n, id); got != want {
					t.Errorf("shown to live for %v, want %v", got, want)
				}
			}
			w.endInTime(n, running.SessionID, idling.SessionID, asleep.SessionID)
		})
	}
}

// endInTime sees sessions that have lived 12 minutes end when they have to.
func (w *timed) endInTime(n *node, running, idling, asleep string) {
	w.t.Helper()
	w.clock.pass(2 * time.Minute)
	w.eventuallyEnded(idling, api.FateIdle)
	w.clock.pass(time.Minute)
	w.eventuallyEnded(running, api.FateIdle)
	if got := n.do(w.t.Context(), "alice", "GET", "/v1/checkpoints", ""); !strings.Contains(got.body, `"kept"`) {
		w.t.Errorf("the checkpoint is gone before its time: %s", got.body)
	}
	w.clock.pass(timedCheckpoint - 15*time.Minute + time.Second)
	w.eventually("checkpoint forgotten", func() bool {
		return !strings.Contains(n.do(w.t.Context(), "alice", "GET", "/v1/checkpoints", "").body, `"kept"`)
	})
	w.clock.pass(8*time.Hour - timedCheckpoint - 2*time.Second)
	w.looked()
	w.wantState("what its owner paused", asleep, api.StatePaused)
	w.clock.pass(time.Second)
	w.eventuallyEnded(asleep, api.FateExpired)
}

// TestEndedIsRemembered: for as long as it has to be, whatever the machine's
// clock says.
func TestEndedIsRemembered(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{9 * time.Hour, -9 * time.Hour} {
		w := newTimed(t)
		n := w.start()
		id := n.create().SessionID
		n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, "")
		w.clock.set(jump)
		w.looked()
		got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, "")
		wantCode(t, got, 410, api.CodeSessionEnded)
		var e api.Error
		if got.decode(t, &e); e.EndedAt == nil || !e.EndedAt.Equal(w.clock.now()) {
			t.Errorf("ended at %v, want the machine's time, %v", e.EndedAt, w.clock.now())
		}
		w.clock.pass(timedRetention + time.Millisecond)
		w.eventually("purged", func() bool { return len(w.records()) == 0 })
	}
}

// TestClockOutlivesProcess: a jump that one process has seen is no time that has
// passed for the next one. What the machine's clock says has passed in between
// has passed, but never less than nothing.
func TestClockOutlivesProcess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ jump, down, left time.Duration }{
		{9 * time.Hour, time.Hour, 6 * time.Hour},
		{-9 * time.Hour, time.Hour, 6 * time.Hour},
		{0, -5 * time.Hour, 7 * time.Hour},
		{9 * time.Hour, -5 * time.Hour, 7 * time.Hour},
		{0, 7 * time.Hour, 0},
	} {
		w := newTimed(t)
		n := w.start()
		id := n.create().SessionID
		n.must(id, "pause")
		w.clock.pass(time.Hour)
		w.clock.set(test.jump)
		w.looked()
		n.stop()
		_ = n.Close(t.Context())
		_ = n.driver.Close()
		w.clock.set(test.down) // with nobody there to see it
		n = w.start()
		if test.left == 0 {
			w.eventuallyEnded(id, api.FateExpired)
			continue
		}
		w.looked()
		w.wantState("the session", id, api.StatePaused)
		if got := w.remaining(n, id); got != test.left {
			t.Errorf("after a jump by %v and %v without a process: %v left, want %v", test.jump, test.down, got, test.left)
		}
	}
}
