package manager_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

const createBody = `{"name":"simple-codeinterpreter","namespace":"default"}`

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	first := n.create("Idempotency-Key", "k1")
	if again := n.create("Idempotency-Key", "k1"); again.SessionID != first.SessionID {
		t.Errorf("the same key gave %s, then %s", first.SessionID, again.SessionID)
	}
	if other := n.create("Idempotency-Key", "k2"); other.SessionID == first.SessionID {
		t.Error("another key gave the same session")
	}
	if bob := n.do(t.Context(), "bob", "POST", createPath, createBody, "Idempotency-Key", "k1"); bob.status != 200 {
		t.Errorf("the key of another owner: %d %s", bob.status, bob.body)
	}
	var e api.Error
	got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default","ttl":5}`, "Idempotency-Key", "k1")
	got.decode(t, &e)
	if got.status != 409 || e.Code != api.CodeIdempotencyConflict {
		t.Errorf("the key with another body: %d %s", got.status, got.body)
	}
	// The key outlives the process.
	n.stop()
	n = w.start()
	if again := n.create("Idempotency-Key", "k1"); again.SessionID != first.SessionID {
		t.Error("after a restart the key gave another session")
	}
	// And the session.
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+first.SessionID, "")
	if got := n.do(t.Context(), "alice", "POST", createPath, createBody, "Idempotency-Key", "k1"); got.status != 410 {
		t.Errorf("the key of an ended session: %d %s, want 410", got.status, got.body)
	}
	if len(w.host.IDs()) != 2 {
		t.Errorf("sandboxes = %q, want k2's and bob's", w.host.IDs())
	}
	for _, bad := range []string{"a b", "é", string(make([]byte, 300))} {
		if got := n.do(t.Context(), "alice", "POST", createPath, createBody, "Idempotency-Key", bad); got.status != 400 {
			t.Errorf("key %q: %d, want 400", bad, got.status)
		}
	}
}

func TestIdempotencyKeyConcurrently(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var made atomic.Int32
	release := make(chan struct{})
	w.hooks.Create = func(context.Context, sandbox.Spec) error {
		made.Add(1)
		<-release
		return nil
	}
	n := w.start()
	const callers = 20
	ids := make([]string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { ids[i] = n.create("Idempotency-Key", "k").SessionID })
	}
	w.eventually("creation under way", func() bool { return made.Load() > 0 })
	close(release)
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("sessions %s and %s from one key", ids[0], id)
		}
	}
	if made.Load() != 1 || len(w.records()) != 1 {
		t.Errorf("%d sandboxes and %d records, want 1", made.Load(), len(w.records()))
	}
}

// TestIdempotencyKeyAtTheLimit: a repeated request is no new sandbox.
func TestIdempotencyKeyAtTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.MaxSandboxes = 1 }
	n := w.start()
	first := n.create("Idempotency-Key", "k")
	if again := n.create("Idempotency-Key", "k"); again.SessionID != first.SessionID {
		t.Error("the same key gave another session")
	}
	if got := n.do(t.Context(), "alice", "POST", createPath, createBody, "Idempotency-Key", "k2"); got.status != 429 {
		t.Errorf("a new key at the limit: %d, want 429", got.status)
	}
	if records := w.records(); len(records) != 1 {
		t.Errorf("%d records after a refused request, want 1", len(records))
	}
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+first.SessionID, "")
	n.create("Idempotency-Key", "k2")
}

// TestRetryAfterFailure: the key of a session that could not be made can be
// used again.
func TestRetryAfterFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var fail atomic.Bool
	fail.Store(true)
	w.hooks.Create = func(context.Context, sandbox.Spec) error {
		if fail.Load() {
			return errors.New("no such luck")
		}
		return nil
	}
	n := w.start()
	got := n.do(t.Context(), "alice", "POST", createPath, createBody, "Idempotency-Key", "k")
	var e api.Error
	got.decode(t, &e)
	if got.status != 500 || e.Code != api.CodeSandboxCreateFailed || e.Text != "internal server error" {
		t.Errorf("failed create = %d %s", got.status, got.body)
	}
	fail.Store(false)
	n.create("Idempotency-Key", "k")
}

// TestCreateFailures fails each step of a creation: nothing is left but a
// record that says so.
func TestCreateFailures(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, test := range []struct {
		name   string
		set    func(w *world)
		status int
		code   api.Code
		reason string
	}{
		{"driver fails", func(w *world) {
			w.hooks.Create = func(context.Context, sandbox.Spec) error { return boom }
		}, 500, api.CodeSandboxCreateFailed, "the sandbox could not be made"},
		{"driver fails late", func(w *world) {
			w.hooks.Created = func(context.Context, sandbox.Spec) error { return boom }
		}, 500, api.CodeSandboxCreateFailed, "the sandbox could not be made"},
		{"driver is full", func(w *world) {
			w.hooks.Create = func(context.Context, sandbox.Spec) error { return sandbox.ErrFull }
		}, 429, api.CodeServerOverloaded, "there was no room for another sandbox"},
		{"machine forbids it", func(w *world) {
			w.hooks.Create = func(context.Context, sandbox.Spec) error {
				return fmt.Errorf("%w: %w", sandbox.ErrNotAllowed, syscall.ENOSPC)
			}
		}, 503, api.CodeSandboxNotAllowed, "the machine does not allow sandboxes"},
		{"image missing", func(w *world) {
			w.hooks.Create = func(context.Context, sandbox.Spec) error { return sandbox.ErrNoImage }
		}, 500, api.CodeImageNotFound, "the template's image was not found"},
		{"driver is slow", func(w *world) {
			w.config = func(c *manager.Config) { c.CreateTimeout = time.Millisecond }
			w.hooks.Create = func(ctx context.Context, _ sandbox.Spec) error { <-ctx.Done(); return ctx.Err() }
		}, 504, api.CodeSandboxTimeout, "the sandbox did not become ready in time"},
		{"agent cannot be reached", func(w *world) {
			w.hooks.Dial = func(context.Context, string, uint16) error { return sandbox.ErrRefused }
		}, 500, api.CodeSandboxInitFailed, "the agent in the sandbox did not take its key"},
		{"agent refuses its key", func(w *world) { w.agents.status = http.StatusForbidden },
			500, api.CodeSandboxInitFailed, "the agent in the sandbox did not take its key"},
		{"store fails at the end", func(w *world) {
			w.wrapStore = func(s manager.Store) manager.Store { return &failingStore{Store: s, failUpdates: 1} }
		}, 500, api.CodeStoreFailed, "the session store failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test.set(w)
			n := w.start()
			got := n.do(t.Context(), "alice", "POST", createPath, createBody)
			var e api.Error
			got.decode(t, &e)
			if got.status != test.status || e.Code != test.code {
				t.Errorf("create = %d %s, want %d %s", got.status, got.body, test.status, test.code)
			}
			machine := e.Code == api.CodeSandboxCreateFailed || e.Code == api.CodeSandboxNotAllowed
			if strings.Contains(e.Hint, "agentcube doctor") != machine {
				t.Errorf("hint %q, want one about doctor where the machine may be the cause", e.Hint)
			}
			recs := w.records()
			if len(recs) != 1 {
				t.Fatalf("%d records, want 1", len(recs))
			}
			if rec := w.eventuallyEnded(recs[0].ID, api.FateFailed); rec.Reason != test.reason {
				t.Errorf("reason = %q, want %q", rec.Reason, test.reason)
			}
		})
	}
}

// failingStore fails its first updates.
type failingStore struct {
	manager.Store
	mu          sync.Mutex
	failUpdates int
}

func (f *failingStore) Update(ctx context.Context, id string, change func(*session.Session) error) (session.Session, error) {
	f.mu.Lock()
	fail := f.failUpdates > 0
	if fail {
		f.failUpdates--
	}
	f.mu.Unlock()
	if fail {
		return session.Session{}, session.ErrUnavailable
	}
	return f.Store.Update(ctx, id, change)
}

// TestClientGone: a client that leaves while its session is being made leaves
// nothing behind.
func TestClientGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	started := make(chan struct{})
	w.hooks.Create = func(ctx context.Context, _ sandbox.Spec) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	}
	n := w.start()
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan answer)
	go func() { answered <- n.do(ctx, "alice", "POST", createPath, createBody) }()
	<-started
	cancel()
	if got := <-answered; got.status != 499 || got.body != "" {
		t.Errorf("answer to nobody = %d %q", got.status, got.body)
	}
	rec := w.eventuallyEnded(w.records()[0].ID, api.FateFailed)
	if rec.Reason != "the client went away while the session was being created" {
		t.Errorf("reason = %q", rec.Reason)
	}
}

// TestClientGoneAtTheLastMoment leaves when all is done but the answer.
func TestClientGoneAtTheLastMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan answer, 1)
	w.config = func(c *manager.Config) {
		c.SessionChanged = func(s session.Session) {
			if s.State == api.StateRunning { // the record says so; the request does not yet know
				cancel()
				gone <- <-gone
			}
		}
	}
	n := w.start()
	got := n.do(ctx, "alice", "POST", createPath, createBody)
	gone <- got
	if got.status != 499 {
		t.Fatalf("answer = %d", got.status)
	}
	w.eventuallyEnded(w.records()[0].ID, api.FateFailed)
}

// TestSecondClientWaits: the first client gives up, but the second one with
// the same key still wants the session.
func TestSecondClientWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	started, release := make(chan struct{}), make(chan struct{})
	start := sync.OnceFunc(func() { close(started) })
	w.hooks.Create = func(ctx context.Context, _ sandbox.Spec) error {
		start()
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	dup := make(chan struct{}, 1)
	w.wrapStore = func(s manager.Store) manager.Store { return &noticeDuplicates{s, dup} }
	n := w.start()
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan answer, 1), make(chan answer, 1)
	go func() { first <- n.do(ctx, "alice", "POST", createPath, createBody, "Idempotency-Key", "k") }()
	<-started
	go func() { second <- n.do(t.Context(), "alice", "POST", createPath, createBody, "Idempotency-Key", "k") }()
	<-dup
	// Whether the second has joined by now or not, it gets the session: this
	// one, or, should the first client's leaving have ended it, a new one.
	cancel()
	<-first
	close(release)
	if got := <-second; got.status != 200 {
		t.Errorf("second client got %d %s", got.status, got.body)
	}
}

// noticeDuplicates tells when a Create found its key taken.
type noticeDuplicates struct {
	manager.Store
	seen chan struct{}
}

func (s *noticeDuplicates) Create(ctx context.Context, rec session.Session) (session.Session, error) {
	out, err := s.Store.Create(ctx, rec)
	if errors.Is(err, session.ErrExists) {
		select {
		case s.seen <- struct{}{}:
		default:
		}
	}
	return out, err
}

// creating returns a manager in the middle of a creation, which lasts until it is
// given up, and what its client will be answered.
func creating(t *testing.T) (*world, *node, <-chan answer) {
	t.Helper()
	w := newWorld(t)
	started := make(chan struct{})
	w.hooks.Create = func(ctx context.Context, _ sandbox.Spec) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	}
	n := w.start()
	answered := make(chan answer, 1)
	go func() { answered <- n.do(t.Context(), "alice", "POST", createPath, createBody) }()
	<-started
	return w, n, answered
}

// TestDeleteWhileCreating: the owner sees the pending session in the list and
// deletes it.
func TestDeleteWhileCreating(t *testing.T) {
	t.Parallel()
	w, n, answered := creating(t)
	id := w.records()[0].ID
	if got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, ""); got.status != 200 {
		t.Errorf("delete = %d %s", got.status, got.body)
	}
	var e api.Error
	got := <-answered
	got.decode(t, &e)
	if got.status != 410 || e.Fate != "deleted" {
		t.Errorf("create = %d %s, want 410", got.status, got.body)
	}
	w.eventuallyEnded(id, api.FateDeleted)
}

func TestCreateWhileClosing(t *testing.T) {
	t.Parallel()
	w, n, answered := creating(t)
	n.stop()
	if err := n.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, got := range []answer{<-answered, n.do(t.Context(), "alice", "POST", createPath, createBody)} {
		var e api.Error
		got.decode(t, &e)
		if got.status != 503 || e.Code != api.CodeUnavailable {
			t.Errorf("create = %d %s, want 503", got.status, got.body)
		}
	}
	w.eventuallyEnded(w.records()[0].ID, api.FateFailed)
}

// TestBurst: more sessions at once than may start at a time all start, a few at
// a time.
func TestBurst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].WarmPoolSize = 5
	var busy, most atomic.Int32
	w.hooks.Create = func(context.Context, sandbox.Spec) error {
		n := busy.Add(1)
		defer busy.Add(-1)
		for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
		}
		time.Sleep(time.Millisecond)
		return nil
	}
	w.config = func(c *manager.Config) { c.MaxParallelStarts = 3 }
	n := w.start()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			who := []string{"alice", "bob"}[i%2]
			if got := n.do(t.Context(), who, "POST", createPath, createBody); got.status != 200 {
				t.Errorf("create = %d %s", got.status, got.body)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || len(w.live()) != 100 {
		t.Errorf("%d started at a time, %d sessions live, want 3 and 100", most.Load(), len(w.live()))
	}
}
