package router_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// waker wakes the sessions of a world as the Workload Manager does, one at a time.
type waker struct {
	w     *world
	mu    sync.Mutex
	calls atomic.Int32
	err   error
	stuck chan struct{} // when set, waking waits until it is closed
}

func (k *waker) Wake(ctx context.Context, id string) error {
	k.calls.Add(1)
	if k.stuck != nil {
		select {
		case <-k.stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if k.err != nil {
		return k.err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.w.driver.Resume(ctx, "s-"+id); err != nil {
		return err
	}
	return k.w.change(id, api.StateRunning)
}

func (w *world) change(id string, state api.State) error {
	rec, err := w.store.Update(context.Background(), id, func(s *session.Session) error { s.State = state; return nil })
	if err == nil {
		w.router.SessionChanged(rec)
	}
	return err
}

// sleep pauses a session as the Workload Manager does.
func (w *world) sleep(id string) {
	w.t.Helper()
	release, ok := w.router.Hold(id, false)
	if !ok {
		w.t.Fatal("session is held already")
	}
	defer release()
	if err := w.driver.Pause(w.t.Context(), "s-"+id); err != nil {
		w.t.Fatal(err)
	}
	if err := w.change(id, api.StatePaused); err != nil {
		w.t.Fatal(err)
	}
}

func newSleepyWorld(t *testing.T, app http.HandlerFunc, set func(*router.Config)) (*world, *waker) {
	k := &waker{}
	w := newWorld(t, app, func(w *world, c *router.Config) {
		k.w, c.Waker = w, k
		if set != nil {
			set(c)
		}
	})
	return w, k
}

func TestWakes(t *testing.T) {
	t.Parallel()
	w, k := newSleepyWorld(t, mirror, nil)
	rec := w.add(nil)
	for range 3 {
		w.sleep(rec.ID)
		for range 2 { // the second one finds it awake
			got := w.mirrored("POST", base+"/x", "body", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
			if got.Body != "body" || got.Path != "/x" {
				t.Errorf("arrived as %+v", got)
			}
		}
	}
	if n := k.calls.Load(); n != 3 {
		t.Errorf("woken %d times, want 3", n)
	}
}

func TestManyWake(t *testing.T) {
	t.Parallel()
	w, _ := newSleepyWorld(t, mirror, nil)
	rec := w.add(keyBound(t))
	token := sdkToken(t, keys().client)
	w.sleep(rec.ID)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if got := w.do("POST", base+"/", "b", "X-Agentcube-Session-Id", rec.ID, "Authorization", token); got.status != 200 {
				t.Errorf("answer %d %s", got.status, got.body)
			}
		})
	}
	wg.Wait()
}

// TestStrangersDoNotWake: who may not use a session does not disturb its sleep.
func TestStrangersDoNotWake(t *testing.T) {
	t.Parallel()
	w, k := newSleepyWorld(t, mirror, nil)
	bound, managed := w.add(keyBound(t)), w.add(nil)
	w.sleep(bound.ID)
	w.sleep(managed.ID)
	for _, test := range []struct {
		id, token string
		want      int
	}{
		{bound.ID, sdkToken(t, keys().stranger), 401}, {bound.ID, "alice", 401},
		{managed.ID, "bob", 404}, {managed.ID, "nonsense", 401},
	} {
		if got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", test.id, "Authorization", test.token); got.status != test.want {
			t.Errorf("answer %d %s, want %d", got.status, got.body, test.want)
		}
	}
	if n := k.calls.Load(); n != 0 || !w.host.Paused(bound.SandboxID) || !w.host.Paused(managed.SandboxID) {
		t.Errorf("strangers woke a session (%d calls)", n)
	}
}

// TestWakeFails: the caller hears why a session does not wake.
func TestWakeFails(t *testing.T) {
	t.Parallel()
	gone := api.Errorf(http.StatusGone, api.CodeSessionEnded, "ended")
	gone.Fate = "expired"
	for name, test := range map[string]struct {
		err    error
		stuck  bool
		status int
		code   api.Code
		retry  bool
	}{
		"full":        {err: httpserve.Overloaded(), status: 429, code: api.CodeServerOverloaded, retry: true},
		"ended":       {err: gone, status: 410, code: api.CodeSessionEnded},
		"disk full":   {err: sandbox.ErrDiskFull, status: 507, code: api.CodeDiskFull},
		"unsupported": {err: sandbox.ErrUnsupported, status: 501, code: api.CodeUnsupported},
		"broken":      {err: errors.New("secret cause"), status: 500, code: api.CodeInternal},
		"too slow":    {stuck: true, status: 504, code: api.CodeSandboxTimeout, retry: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, k := newSleepyWorld(t, mirror, func(c *router.Config) { c.WakeTimeout = guard })
			if test.stuck {
				w, k = newSleepyWorld(t, mirror, func(c *router.Config) { c.WakeTimeout = time.Millisecond })
				k.stuck = make(chan struct{})
			}
			k.err = test.err
			rec := w.add(nil)
			w.sleep(rec.ID)
			got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
			if got.status != test.status || !strings.Contains(got.body, `"`+string(test.code)+`"`) ||
				test.retry != (got.header.Get("Retry-After") != "") || strings.Contains(got.body, "secret") {
				t.Errorf("answer %d %v %s, want %d %s", got.status, got.header, got.body, test.status, test.code)
			}
			if id := got.header.Get("X-Agentcube-Session-Id"); id != rec.ID {
				t.Errorf("answer names session %q", id)
			}
		})
	}
}

// TestPauseCutsRequest: a request under way is told that its session was paused,
// and the next one wakes it.
func TestPauseCutsRequest(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	var slow atomic.Bool
	slow.Store(true)
	w, _ := newSleepyWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if slow.Load() {
			arrived <- struct{}{}
			<-r.Context().Done()
		}
	}, func(c *router.Config) { c.ExitGrace = guard })
	rec := w.add(nil)
	answers := make(chan answer, 1)
	go func() {
		answers <- w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	}()
	<-arrived
	w.sleep(rec.ID)
	got := <-answers
	if got.status != http.StatusConflict || !strings.Contains(got.body, string(api.CodeSessionPaused)) {
		t.Errorf("answer %d %s, want 409 %s", got.status, got.body, api.CodeSessionPaused)
	}
	slow.Store(false)
	if got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"); got.status != 200 {
		t.Errorf("the next request = %d %s", got.status, got.body)
	}
}

// TestPauseCutsStream: an answer that has begun breaks off; it does not end as
// if it were whole.
func TestPauseCutsStream(t *testing.T) {
	t.Parallel()
	w, _ := newSleepyWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "begun")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}, nil)
	rec := w.add(nil)
	resp, err := w.send(t.Context(), "GET", base+"/", http.NoBody, "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	w.sleep(rec.ID)
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream ended as if it were whole")
	}
}

// TestHoldMakesWait: what comes while a session is being paused waits, and wakes
// it then.
func TestHoldMakesWait(t *testing.T) {
	t.Parallel()
	w, k := newSleepyWorld(t, mirror, nil)
	rec := w.add(nil)
	get := func() answer {
		return w.do("POST", base+"/", "b", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	}
	if got := get(); got.status != 200 { // there is a connection to use again
		t.Fatalf("answer %d %s", got.status, got.body)
	}
	var release func()
	w.eventually("held when idle", func() (ok bool) {
		release, ok = w.router.Hold(rec.ID, true)
		return ok
	})
	if _, ok := w.router.Hold(rec.ID, false); ok {
		t.Fatal("a session was held twice")
	}
	answers := make(chan answer, 8)
	for range cap(answers) {
		go func() { answers <- get() }()
	}
	if err := w.driver.Pause(t.Context(), rec.SandboxID); err != nil {
		t.Fatal(err)
	}
	if err := w.change(rec.ID, api.StatePaused); err != nil {
		t.Fatal(err)
	}
	if len(answers) > 0 || k.calls.Load() > 0 {
		t.Error("a request did not wait")
	}
	release()
	for range cap(answers) {
		if got := <-answers; got.status != 200 {
			t.Errorf("answer %d %s", got.status, got.body)
		}
	}
}

func TestHoldIdleRefusesBusy(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}), make(chan struct{})
	w, _ := newSleepyWorld(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-leave }, nil)
	rec := w.add(nil)
	answers := make(chan answer, 1)
	go func() {
		answers <- w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	}()
	<-arrived
	if _, ok := w.router.Hold(rec.ID, true); ok {
		t.Error("a session with a request under way was held as idle")
	}
	close(leave)
	if got := <-answers; got.status != 200 {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	w.eventually("held when idle", func() bool {
		release, ok := w.router.Hold(rec.ID, true)
		if ok {
			release()
		}
		return ok
	})
}

// TestPausedBehindTheBack: the sandbox sleeps while the record says that it
// runs. Nothing was sent, so the request is sent again once it is awake.
func TestPausedBehindTheBack(t *testing.T) {
	t.Parallel()
	w, k := newSleepyWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		// Otherwise a request may go out on a connection of before the pause, in the
		// moment until it is known to be dead.
		rw.Header().Set("Connection", "close")
		mirror(rw, r)
	}, nil)
	rec := w.add(nil)
	body := strings.Repeat("x", 1<<20)
	for range 2 {
		if err := w.driver.Pause(t.Context(), rec.SandboxID); err != nil {
			t.Fatal(err)
		}
		got := w.mirrored("POST", base+"/", body, "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
		if got.Body != body {
			t.Errorf("%d bytes arrived, want %d", len(got.Body), len(body))
		}
	}
	if n := k.calls.Load(); n != 2 {
		t.Errorf("woken %d times, want 2", n)
	}
}

// TestActivityWhilePauseIsNear: a request that lasts is noted often enough for a
// session that is paused sooner than it ends.
func TestActivityWhilePauseIsNear(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}), make(chan struct{})
	w, _ := newSleepyWorld(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-leave }, nil)
	rec := w.add(func(s *session.Session) { s.IdleTimeout, s.PauseAfter = time.Hour, 60*time.Millisecond })
	answers := make(chan answer, 1)
	go func() {
		answers <- w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	}()
	<-arrived
	begun := w.lastActivity(rec.ID)
	w.eventually("noted again while the request lasts", func() bool { return w.lastActivity(rec.ID).After(begun) })
	close(leave)
	<-answers
}
