package manager_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/template"
)

func (n *node) change(id, verb string) answer {
	return n.do(n.t.Context(), "alice", "POST", "/v1/sessions/"+id+"/"+verb, "")
}

// must changes a session and returns what the answer says of it.
func (n *node) must(id, verb string) api.Session {
	n.t.Helper()
	got := n.change(id, verb)
	if got.status != http.StatusOK {
		n.t.Fatalf("%s = %d %s", verb, got.status, got.body)
	}
	var out api.Session
	got.decode(n.t, &out)
	return out
}

func wantCode(t *testing.T, got answer, status int, code api.Code) {
	t.Helper()
	if got.status != status || !strings.Contains(got.body, `"`+string(code)+`"`) {
		t.Errorf("answer %d %s, want %d %s", got.status, got.body, status, code)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var changes []api.State
	var mu sync.Mutex
	w.config = func(c *manager.Config) {
		c.SessionChanged = func(s session.Session) { mu.Lock(); defer mu.Unlock(); changes = append(changes, s.State) }
	}
	n := w.start()
	made := n.create()
	for range 2 { // the second time it is paused already
		out := n.must(made.SessionID, "pause")
		if out.State != api.StatePaused || out.PausedAt == nil || !w.host.Paused(made.SandboxID) {
			t.Errorf("paused: %+v", out)
		}
	}
	before := w.record(made.SessionID)
	for range 2 {
		out := n.must(made.SessionID, "resume")
		if out.State != api.StateRunning || out.PausedAt != nil || w.host.Paused(made.SandboxID) {
			t.Errorf("resumed: %+v", out)
		}
	}
	if rec := w.record(made.SessionID); !rec.LastActivity.After(before.LastActivity) || rec.PausedBy != "" {
		t.Errorf("resumed record: %+v, want a new idle clock", rec)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(changes) < 3 || changes[0] != api.StateRunning || changes[1] != api.StatePaused || changes[len(changes)-1] != api.StateRunning {
		t.Errorf("changes told: %v", changes)
	}
}

func TestPauseRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	made, over := n.create(), n.create()
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+over.SessionID, "")
	const unknown = "5b1f1c2e-1111-4222-8333-444444444444"
	for _, verb := range []string{"pause", "resume"} {
		wantCode(t, n.change(over.SessionID, verb), 410, api.CodeSessionEnded)
		wantCode(t, n.change(unknown, verb), 404, api.CodeSessionNotFound)
		path := "/v1/sessions/" + made.SessionID + "/" + verb
		wantCode(t, n.do(t.Context(), "bob", "POST", path, ""), 404, api.CodeSessionNotFound)
		wantCode(t, n.do(t.Context(), "", "POST", path, ""), 401, api.CodeUnauthorized)
		got := n.do(t.Context(), "root", "POST", path, "") // an administrator sees it, and that is all
		wantCode(t, got, 404, api.CodeSessionNotFound)
		if !strings.Contains(got.body, "another owner's") {
			t.Errorf("%s by an administrator does not say why: %s", verb, got.body)
		}
	}
	pending := w.record(made.SessionID)
	pending.ID, pending.SandboxID, pending.State = unknown, "s-"+unknown, api.StatePending
	if _, err := w.store.Create(t.Context(), pending); err != nil {
		t.Fatal(err)
	}
	wantCode(t, n.change(unknown, "pause"), 409, api.CodeSessionNotReady)
}

// TestPauseFails: the session runs on, and the answer says why it was not paused.
func TestPauseFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		code   api.Code
	}{
		{sandbox.ErrDiskFull, 507, api.CodeDiskFull},
		{sandbox.ErrUnsupported, 501, api.CodeUnsupported},
		{errors.New("secret cause"), 500, api.CodeInternal},
	} {
		w := newWorld(t)
		w.hooks.Pause = func(context.Context, string) error { return test.err }
		w.hooks.Resume = func(context.Context, string) error { return test.err }
		n := w.start()
		made := n.create()
		got := n.change(made.SessionID, "pause")
		wantCode(t, got, test.status, test.code)
		if strings.Contains(got.body, "secret") || w.record(made.SessionID).State != api.StateRunning || w.host.Paused(made.SandboxID) {
			t.Errorf("after %v: %s, record %s", test.err, got.body, w.record(made.SessionID).State)
		}
	}
}

// TestResumeFails: the session stays asleep and can be woken later.
func TestResumeFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var broken atomic.Bool
	broken.Store(true)
	w.hooks.Resume = func(context.Context, string) error {
		if broken.Load() {
			return errors.New("damaged")
		}
		return nil
	}
	n := w.start()
	made := n.create()
	n.must(made.SessionID, "pause")
	wantCode(t, n.change(made.SessionID, "resume"), 500, api.CodeInternal)
	if w.record(made.SessionID).State != api.StatePaused || !w.host.Paused(made.SandboxID) {
		t.Error("the session is not asleep any more")
	}
	broken.Store(false)
	n.must(made.SessionID, "resume")
}

// TestPausedTakesNoRoom: but it is its owner's, and waking it needs room.
func TestPausedTakesNoRoom(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*manager.Config){
		"count":  func(c *manager.Config) { c.MaxSandboxes = 1 },
		"memory": func(c *manager.Config) { c.MemoryBudget = 1 << 30 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config = func(c *manager.Config) { limit(c); c.MaxPerOwner = 3 }
			n := w.start()
			a := n.create()
			n.must(a.SessionID, "pause")
			b := n.create()
			got := n.change(a.SessionID, "resume")
			wantCode(t, got, 429, api.CodeServerOverloaded)
			if got.header.Get("Retry-After") == "" || !w.host.Paused(a.SandboxID) {
				t.Errorf("no Retry-After, or not asleep: %v", got.header)
			}
			n.must(b.SessionID, "pause")
			n.must(a.SessionID, "resume")
			n.must(a.SessionID, "pause")
			n.create() // the third of this owner
			wantCode(t, n.do(t.Context(), "alice", "POST", createPath, createBody), 429, api.CodeServerOverloaded)
			n.stop()
			_ = n.Close(t.Context())
			_ = n.driver.Close()
			n = w.start() // which counts the same
			wantCode(t, n.change(a.SessionID, "resume"), 429, api.CodeServerOverloaded)
			n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+b.SessionID, "")
			for _, rec := range w.records() {
				if rec.State == api.StateRunning {
					n.must(rec.ID, "pause")
				}
			}
			n.must(a.SessionID, "resume")
		})
	}
}

// TestWakersShareOneResume: and it goes on when they lose patience.
func TestWakersShareOneResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var resumes atomic.Int32
	begun, free := make(chan struct{}), make(chan struct{})
	w.hooks.Resume = func(ctx context.Context, _ string) error {
		if resumes.Add(1) == 1 {
			close(begun)
		}
		select {
		case <-free:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n := w.start()
	made := n.create()
	n.must(made.SessionID, "pause")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := n.Wake(ctx, made.SessionID); !errors.Is(err, context.Canceled) {
				t.Errorf("Wake given up = %v", err)
			}
		})
	}
	<-begun
	cancel()
	wg.Wait()
	for range 8 {
		wg.Go(func() {
			if err := n.Wake(t.Context(), made.SessionID); err != nil {
				t.Errorf("Wake: %v", err)
			}
		})
	}
	close(free)
	wg.Wait()
	if n := resumes.Load(); n != 1 || w.record(made.SessionID).State != api.StateRunning {
		t.Errorf("%d resumes, want 1", n)
	}
}

func TestIdlePause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].PauseAfter, w.templates[0].IdleTimeout = 30*time.Millisecond, time.Hour
	n := w.start()
	made := n.create()
	paused := func() bool { return w.record(made.SessionID).State == api.StatePaused }
	w.eventually("paused when idle", paused)
	rec := w.record(made.SessionID)
	if idle := rec.PausedAt.Sub(rec.LastActivity); idle < rec.PauseAfter || rec.PausedBy != session.PausedByIdling {
		t.Errorf("paused after %v by %q", idle, rec.PausedBy)
	}
	n.must(made.SessionID, "resume")
	w.eventually("paused again", paused)
	// Its owner's wish counts from when it was said.
	n.must(made.SessionID, "pause")
	if rec := w.record(made.SessionID); rec.PausedBy != session.PausedByOwner {
		t.Errorf("paused by %q, want by its owner", rec.PausedBy)
	}
}

// TestIdleTimeoutOfPaused: it holds for a session that was paused by itself, and
// not for one that its owner paused; the longest life holds for both.
func TestIdleTimeoutOfPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	idling, kept := python("idling"), python("kept")
	idling.PauseAfter, idling.IdleTimeout = 20*time.Millisecond, 300*time.Millisecond
	kept.IdleTimeout, kept.MaxDuration = 4*time.Second, 6*time.Second
	w.templates = []template.Template{idling, kept}
	n := w.start()
	create := func(name string) (out api.CreateResponse) {
		got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"`+name+`","namespace":"default"}`)
		if got.status != 200 {
			t.Fatalf("create = %d %s", got.status, got.body)
		}
		got.decode(t, &out)
		return out
	}
	b := create("kept")
	n.must(b.SessionID, "pause")
	a := create("idling")
	w.eventuallyEnded(a.SessionID, api.FateIdle)
	rec := w.eventuallyEnded(b.SessionID, api.FateExpired)
	if rec.EndedAt.Before(rec.ExpiresAt) {
		t.Errorf("ended %v before its time", rec.ExpiresAt.Sub(rec.EndedAt))
	}
}

// TestBusyIsNotPaused: a session with a request under way is left alone, however
// long ago that was noted.
func TestBusyIsNotPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].PauseAfter = 5 * time.Millisecond
	var busy atomic.Bool
	busy.Store(true)
	asked := make(chan struct{}, 1000)
	w.config = func(c *manager.Config) {
		c.HoldRequests = func(_ string, idle bool) (func(), bool) {
			select {
			case asked <- struct{}{}:
			default:
			}
			return func() {}, !idle || !busy.Load()
		}
	}
	n := w.start()
	made := n.create()
	for range 3 {
		<-asked
	}
	if w.host.Paused(made.SandboxID) {
		t.Error("a busy session was paused")
	}
	busy.Store(false)
	w.eventually("paused when idle", func() bool { return w.record(made.SessionID).State == api.StatePaused })
}

// TestHeldWhilePausing: new requests are held back from before the sandbox is
// paused until the record says so.
func TestHeldWhilePausing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var held atomic.Bool
	w.config = func(c *manager.Config) {
		c.HoldRequests = func(string, bool) (func(), bool) { held.Store(true); return func() { held.Store(false) }, true }
		c.SessionChanged = func(s session.Session) {
			if s.State == api.StatePaused && !held.Load() {
				t.Error("released before the news")
			}
		}
	}
	w.hooks.Pause = func(context.Context, string) error {
		if !held.Load() {
			t.Error("paused, but not held")
		}
		return nil
	}
	n := w.start()
	made := n.create()
	n.must(made.SessionID, "pause")
	if held.Load() {
		t.Error("held for ever")
	}
}

// TestDeleteWhileChanging: a session that is deleted on its way to sleep or back
// is gone, with its sandbox, also when it would never have arrived.
func TestDeleteWhileChanging(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"pause", "resume"} {
		w := newWorld(t)
		begun := make(chan struct{}, 1)
		stall := func(ctx context.Context, _ string) error { begun <- struct{}{}; <-ctx.Done(); return ctx.Err() }
		if w.hooks.Pause = stall; verb == "resume" {
			w.hooks.Pause, w.hooks.Resume = nil, stall
		}
		n := w.start()
		made := n.create()
		if verb == "resume" {
			n.must(made.SessionID, "pause")
		}
		answers := make(chan answer, 1)
		go func() { answers <- n.change(made.SessionID, verb) }()
		<-begun
		if got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+made.SessionID, ""); got.status != 200 {
			t.Errorf("delete = %d %s", got.status, got.body)
		}
		wantCode(t, <-answers, 410, api.CodeSessionEnded)
		w.eventuallyEnded(made.SessionID, api.FateDeleted)
	}
}

// TestOpenFollowsDriver: whether a session sleeps, the sandbox knows.
func TestOpenFollowsDriver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	wokenBehind, pausedBehind, asleep, lost := n.create(), n.create(), n.create(), n.create()
	for _, s := range []api.CreateResponse{wokenBehind, asleep, lost} {
		n.must(s.SessionID, "pause")
	}
	n.stop()
	_ = n.Close(t.Context())
	if err := errors.Join(n.driver.Resume(t.Context(), wokenBehind.SandboxID), n.driver.Pause(t.Context(), pausedBehind.SandboxID)); err != nil {
		t.Fatal(err)
	}
	_ = n.driver.Close()
	w.host.Lose(lost.SandboxID)
	n = w.start()
	w.eventuallyEnded(lost.SessionID, api.FateHostLost)
	for id, want := range map[string]api.State{
		wokenBehind.SessionID: api.StateRunning, pausedBehind.SessionID: api.StatePaused, asleep.SessionID: api.StatePaused,
	} {
		if got := w.record(id).State; got != want {
			t.Errorf("session is %s, want %s", got, want)
		}
		n.must(id, "resume")
	}
	if !w.consistent() {
		t.Error("records and sandboxes do not agree")
	}
}

// TestWakeFollowsDriver: a record that says running does not keep a sleeping
// sandbox from being woken.
func TestWakeFollowsDriver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	made := n.create()
	if err := n.driver.Pause(t.Context(), made.SandboxID); err != nil {
		t.Fatal(err)
	}
	if err := n.Wake(t.Context(), made.SessionID); err != nil || w.host.Paused(made.SandboxID) {
		t.Errorf("Wake = %v, paused %t", err, w.host.Paused(made.SandboxID))
	}
}

// TestPausedOutlivesStop: a stop ends what runs, and leaves what sleeps.
func TestPausedOutlivesStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.KeepSessions = false }
	n := w.start()
	asleep, running := n.create(), n.create()
	n.must(asleep.SessionID, "pause")
	n.stop()
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = n.driver.Close()
	n = w.start()
	w.eventuallyEnded(running.SessionID, api.FateHostLost)
	n.must(asleep.SessionID, "resume")
}

// TestSleepRaces pauses, wakes and reads sessions from all sides, while the
// reaper pauses them too, and deletes them in the end.
func TestSleepRaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].PauseAfter = 2 * time.Millisecond
	n := w.start()
	for range 4 {
		id := n.create().SessionID
		var wg sync.WaitGroup
		for _, verb := range []string{"pause", "resume", "pause", "resume", ""} {
			wg.Go(func() {
				for range 20 {
					if verb == "" {
						if err := n.Wake(t.Context(), id); err != nil {
							t.Errorf("Wake: %v", err)
						}
						continue
					}
					if got := n.change(id, verb); got.status != 200 && got.status != 410 {
						t.Errorf("%s = %d %s", verb, got.status, got.body)
					}
				}
			})
		}
		wg.Wait()
		wg.Go(func() { n.change(id, "pause") })
		wg.Go(func() { n.change(id, "resume") })
		if got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, ""); got.status != 200 {
			t.Errorf("delete = %d %s", got.status, got.body)
		}
		wg.Wait()
		w.eventuallyEnded(id, api.FateDeleted)
	}
	w.eventually("no sandbox is left", func() bool { return len(w.host.IDs()) == 0 })
}
