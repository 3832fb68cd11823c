package manager_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// aged is a driver whose sandboxes are older than they are, but for one.
type aged struct {
	sandbox.Full
	young string
}

func (d aged) List(ctx context.Context) ([]sandbox.Sandbox, error) {
	all, err := d.Full.List(ctx)
	for i := range all {
		if all[i].ID != d.young {
			all[i].CreatedAt = all[i].CreatedAt.Add(-time.Hour)
		}
	}
	return all, err
}

func (d aged) Snapshots(ctx context.Context) ([]sandbox.Snapshot, error) {
	all, err := d.Full.Snapshots(ctx)
	for i := range all {
		if all[i].Name != d.young {
			all[i].CreatedAt = all[i].CreatedAt.Add(-time.Hour)
		}
	}
	return all, err
}

// TestSettle: what a manager that died has left behind is found by those that live, in
// both directions, once. What is young is not touched.
func TestSettle(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	log := &recorded{}
	w.set(func(cfg *manager.Config) { cfg.Audit = log })
	const young = "s-22222222-1111-4222-8333-444444444444"
	w.wrap = func(d sandbox.Full) sandbox.Full { return aged{d, young} }
	a, looked := w.counted()
	kept, lost := a.create(), a.create()
	forge := func(change func(*session.Session)) session.Session {
		rec := w.record(kept.SessionID)
		rec.ID = uuid.NewString()
		rec.SandboxID = manager.SandboxID(rec.ID)
		change(&rec)
		if _, err := w.store.Create(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		return rec
	}
	making := forge(func(s *session.Session) { s.State, s.CreatedAt = api.StatePending, time.Now().UTC() })
	dead := forge(func(s *session.Session) {
		s.State, s.CreatedAt, s.IdempotencyKey, s.RequestDigest = api.StatePending, time.Now().UTC().Add(-time.Hour), "k", "d"
	})
	over := forge(func(s *session.Session) {
		s.State, s.Fate, s.EndedAt = api.StateEnded, api.FateDeleted, time.Now().UTC().Add(-time.Hour)
	})
	for _, id := range []string{young, "s-33333333-1111-4222-8333-444444444444", "unknown", over.SandboxID} {
		if _, err := a.driver.Create(t.Context(), sandbox.Spec{ID: id, Image: "python"}); err != nil {
			t.Fatal(err)
		}
	}
	_, others := w.counted()
	w.host.Lose(lost.SandboxID)
	w.eventuallyEnded(dead.ID, api.FateFailed)
	w.eventuallyEnded(lost.SessionID, api.FateHostLost)
	w.eventually("what nobody has is removed", func() bool { return len(w.host.IDs()) == 2 })
	w.pass(looked)
	w.pass(others)
	if _, there := w.host.Spec(young); !there {
		t.Error("a young sandbox was removed")
	}
	if s := w.record(making.ID); s.State != api.StatePending {
		t.Errorf("a session that may be being made is %q %q", s.State, s.Fate)
	}
	if s := w.record(kept.SessionID); s.State != api.StateRunning {
		t.Errorf("a running session is %q %q", s.State, s.Fate)
	}
	if s := w.record(dead.ID); s.IdempotencyKey != "" {
		t.Error("a session that never was keeps its key")
	}
	for _, id := range []string{dead.ID, lost.SessionID} {
		if n := log.count(record.SessionEnded, id); n != 1 {
			t.Errorf("the end of a session was recorded %d times", n)
		}
	}
}

// count is how many events of an action are about a session.
func (r *recorded) count(action record.Action, session string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Action == action && e.Session == session {
			n++
		}
	}
	return n
}

// TestExitSeenTwice: the end of a sandbox, which each manager hears of, is that of its
// session once.
func TestExitSeenTwice(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	log := &recorded{}
	var ended atomic.Int32
	w.set(func(cfg *manager.Config) {
		cfg.Audit = log
		cfg.SessionChanged = func(s session.Session) {
			if s.Ended() {
				ended.Add(1)
			}
		}
	})
	a, first := w.counted()
	_, second := w.counted()
	var ids []string
	for range 10 {
		ids = append(ids, a.create().SessionID)
	}
	for _, id := range ids {
		if err := w.host.Exit(manager.SandboxID(id), sandbox.ExitOutOfMemory, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		w.eventuallyEnded(id, api.FateOutOfMemory)
	}
	w.pass(first)
	w.pass(second)
	for _, id := range ids {
		if n := log.count(record.SessionEnded, id); n != 1 {
			t.Errorf("the end of a session was recorded %d times", n)
		}
	}
	if n := ended.Load(); n != 10 {
		t.Errorf("%d ends of ten sessions were told", n)
	}
}

// blind is a driver whose list lags behind.
type blind struct{ sandbox.Full }

func (blind) List(context.Context) ([]sandbox.Sandbox, error) { return nil, nil }

// TestListLags: a sandbox that is there, but not in the list, is not missed.
func TestListLags(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	w.wrap = func(d sandbox.Full) sandbox.Full { return blind{d} }
	n, looked := w.counted()
	id := n.create().SessionID
	w.pass(looked)
	w.pass(looked)
	if s := w.record(id); s.State != api.StateRunning {
		t.Errorf("session is %q %q", s.State, s.Fate)
	}
}

// TestOthersMakeSnapshots: a snapshot that has no record yet is swept when it is old.
func TestOthersMakeSnapshots(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	w.set(func(cfg *manager.Config) { cfg.Retention = 5 * time.Millisecond })
	w.wrap = func(d sandbox.Full) sandbox.Full { return aged{d, "c-young"} }
	n := w.start()
	id := n.create().SandboxID
	for _, name := range []string{"c-young", "c-old"} {
		if _, err := n.driver.Checkpoint(t.Context(), id, name); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("the old one is swept", func() bool { return len(w.host.Snapshots()) == 1 })
	if left := w.host.Snapshots(); left[0] != "c-young" {
		t.Errorf("snapshots %q", left)
	}
}

// deaf is a driver that tells of no exits.
type deaf struct{ sandbox.Full }

func (deaf) Exits() <-chan sandbox.Exit { return nil }

// TestExitWhileMadeElsewhere: when a sandbox ends while its session is being made, it is
// the manager that makes it whose client hears why.
func TestExitWhileMadeElsewhere(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	g := newGate()
	w.hooks.Created = g.wait
	w.wrap = func(d sandbox.Full) sandbox.Full { return deaf{d} }
	a := w.start()
	w.hooks.Created, w.wrap = nil, nil
	b, looked := w.counted()
	made := a.begin(t.Context())
	<-g.entered
	id := w.live()[0].ID
	if err := w.host.Exit(manager.SandboxID(id), sandbox.ExitOutOfMemory, ""); err != nil {
		t.Fatal(err)
	}
	// A later exit, so that it is known to have heard of the one before.
	later := w.live()[0]
	later.ID = uuid.NewString()
	later.SandboxID, later.State = manager.SandboxID(later.ID), api.StateRunning
	if _, err := b.driver.Create(t.Context(), sandbox.Spec{ID: later.SandboxID, Image: "python"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Create(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if err := w.host.Exit(later.SandboxID, sandbox.ExitOutOfMemory, ""); err != nil {
		t.Fatal(err)
	}
	w.eventuallyEnded(later.ID, api.FateOutOfMemory)
	w.pass(looked)
	if s := w.record(id); s.State != api.StatePending {
		t.Errorf("session is %q %q", s.State, s.Fate)
	}
	close(g.open)
	if got := <-made; got.status != http.StatusInternalServerError || !strings.Contains(got.body, string(api.CodeSandboxInitFailed)) {
		t.Errorf("create = %d %s", got.status, got.body)
	}
	w.eventuallyEnded(id, api.FateFailed)
}
