package manager_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

var errDead = errors.New("the process is dead")

// life counts the operations of one process on the outside world and ends it
// at one of them, like kill -9: either just before the operation takes effect
// or just after. From then on nothing that the process does has an effect.
type life struct {
	mu    sync.Mutex
	n     int
	end   int // the operation at which it ends; 0 means never
	after bool
	dead  bool
}

func (l *life) do(op func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock() // one at a time: the end is a moment for all of them
	if l.dead {
		return errDead
	}
	l.n++
	if l.n != l.end {
		return op()
	}
	l.dead = true
	if l.after {
		_ = op()
	}
	return errDead
}

func (l *life) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

type mortalStore struct {
	manager.Store
	life *life
}

func (s mortalStore) Create(ctx context.Context, rec session.Session) (out session.Session, err error) {
	dead := s.life.do(func() error { out, err = s.Store.Create(ctx, rec); return nil })
	return out, errors.Join(dead, err)
}

func (s mortalStore) Update(ctx context.Context, id string, change func(*session.Session) error) (out session.Session, err error) {
	dead := s.life.do(func() error { out, err = s.Store.Update(ctx, id, change); return nil })
	return out, errors.Join(dead, err)
}

func (s mortalStore) Touch(ctx context.Context, id string, at time.Time) (err error) {
	dead := s.life.do(func() error { err = s.Store.Touch(ctx, id, at); return nil })
	return errors.Join(dead, err)
}

func (s mortalStore) CreateCheckpoint(ctx context.Context, c session.Checkpoint) (err error) {
	dead := s.life.do(func() error { err = s.Store.CreateCheckpoint(ctx, c); return nil })
	return errors.Join(dead, err)
}

func (s mortalStore) DeleteCheckpoint(ctx context.Context, owner, name, snapshot string) (err error) {
	dead := s.life.do(func() error { err = s.Store.DeleteCheckpoint(ctx, owner, name, snapshot); return nil })
	return errors.Join(dead, err)
}

type mortalDriver struct {
	sandbox.Full
	life *life
}

func (d mortalDriver) Create(ctx context.Context, spec sandbox.Spec) (out sandbox.Sandbox, err error) {
	dead := d.life.do(func() error { out, err = d.Full.Create(ctx, spec); return nil })
	return out, errors.Join(dead, err)
}

func (d mortalDriver) Delete(ctx context.Context, id string) (err error) {
	dead := d.life.do(func() error { err = d.Full.Delete(ctx, id); return nil })
	return errors.Join(dead, err)
}

func (d mortalDriver) Dial(ctx context.Context, id string, port uint16) (conn net.Conn, err error) {
	dead := d.life.do(func() error { conn, err = d.Full.Dial(ctx, id, port); return nil })
	return conn, errors.Join(dead, err)
}

func (d mortalDriver) Pause(ctx context.Context, id string) (err error) {
	dead := d.life.do(func() error { err = d.Full.Pause(ctx, id); return nil })
	return errors.Join(dead, err)
}

func (d mortalDriver) Resume(ctx context.Context, id string) (err error) {
	dead := d.life.do(func() error { err = d.Full.Resume(ctx, id); return nil })
	return errors.Join(dead, err)
}

func (d mortalDriver) Checkpoint(ctx context.Context, id, name string) (out sandbox.Snapshot, err error) {
	dead := d.life.do(func() error { out, err = d.Full.Checkpoint(ctx, id, name); return nil })
	return out, errors.Join(dead, err)
}

func (d mortalDriver) DeleteSnapshot(ctx context.Context, name string) (err error) {
	dead := d.life.do(func() error { err = d.Full.DeleteSnapshot(ctx, name); return nil })
	return errors.Join(dead, err)
}

// TestKilledAtEveryStep kills the process before and after each of its
// operations on the world while it creates a session and deletes it, starts a
// new one, and checks that record and sandbox agree and that no answer that a
// client got was a lie.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for step := 1; ; step++ {
			l := &life{end: step, after: after}
			t.Run(fmt.Sprintf("step %d after=%t", step, after), func(t *testing.T) { killAt(t, l) })
			if !l.isDead() {
				if step < 7 { // record, sandbox, key, activity, record, end, removal
					t.Errorf("the scenario has only %d operations", step-1)
				}
				break
			}
		}
	}
}

func killAt(t *testing.T, l *life) {
	w := newWorld(t)
	w.wrapStore = func(s manager.Store) manager.Store { return mortalStore{s, l} }
	w.wrap = func(d sandbox.Full) sandbox.Full { return mortalDriver{d, l} }
	n := w.start()
	created := n.do(t.Context(), "alice", "POST", createPath, createBody, "Idempotency-Key", "k")
	var id string
	deleted := answer{}
	if created.status == 200 {
		id = w.records()[0].ID
		deleted = n.do(t.Context(), "alice", "DELETE", createPath+"/sessions/"+id, "")
	}
	died := l.isDead()
	n.stop()

	w.wrapStore, w.wrap = nil, nil
	n = w.start()
	w.eventually("record and sandbox agree", func() bool { return w.consistent() })
	switch {
	case deleted.status == 200:
		if rec := w.record(id); rec.Fate != api.FateDeleted {
			t.Errorf("client heard that the session was deleted; it is %q %q", rec.State, rec.Fate)
		}
	case created.status == 200 && !died:
		t.Errorf("delete = %d %s", deleted.status, deleted.body)
	case created.status == 200:
		// The delete was not answered: it may have happened or not.
		if rec := w.record(id); rec.State != api.StateRunning && rec.Fate != api.FateDeleted {
			t.Errorf("session is %q %q", rec.State, rec.Fate)
		}
	}
	// A client that heard nothing asks again with its key and gets a session.
	if created.status != 200 {
		n.create("Idempotency-Key", "k")
		if live := w.live(); len(live) != 1 {
			t.Errorf("%d living sessions for one key", len(live))
		}
	}
}

func (w *world) live() (live []session.Session) {
	for _, rec := range w.records() {
		if !rec.Ended() {
			live = append(live, rec)
		}
	}
	return live
}

// consistent reports whether exactly the running and paused sessions have
// sandboxes, which run or are paused as their records say.
func (w *world) consistent() bool {
	live := w.live()
	for _, rec := range live {
		if _, there := w.host.Spec(rec.SandboxID); !there || rec.State == api.StatePending ||
			w.host.Paused(rec.SandboxID) != (rec.State == api.StatePaused) {
			return false
		}
	}
	return len(live) == len(w.host.IDs())
}

// TestOpenSettles puts each thing that an earlier process can leave behind.
func TestOpenSettles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	kept, lost, exited, oom := n.create(), n.create(), n.create(), n.create()
	n.stop()
	before := w.record(kept.SessionID).LastActivity
	_ = n.Close(t.Context())
	_ = n.driver.Close()

	w.host.Lose(lost.SandboxID)
	for id, reason := range map[string]sandbox.ExitReason{exited.SandboxID: sandbox.ExitStopped, oom.SandboxID: sandbox.ExitOutOfMemory} {
		if err := w.host.Exit(id, reason, ""); err != nil {
			t.Fatal(err)
		}
	}
	pending := w.record(kept.SessionID)
	pending.ID, pending.SandboxID, pending.State = "0b1f1c2e-1111-4222-8333-444444444444", "s-0b1f1c2e-1111-4222-8333-444444444444", api.StatePending
	if _, err := w.store.Create(t.Context(), pending); err != nil {
		t.Fatal(err)
	}

	n = w.start()
	w.eventuallyEnded(lost.SessionID, api.FateHostLost)
	w.eventuallyEnded(exited.SessionID, api.FateFailed)
	w.eventuallyEnded(oom.SessionID, api.FateOutOfMemory)
	w.eventuallyEnded(pending.ID, api.FateFailed)
	w.eventually("record and sandbox agree", w.consistent)
	rec := w.record(kept.SessionID)
	if rec.State != api.StateRunning || !rec.LastActivity.After(before) {
		t.Errorf("kept session: %q, last activity %v, want it running and its idle clock started anew", rec.State, rec.LastActivity)
	}
	if got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+kept.SessionID, ""); got.status != 200 {
		t.Errorf("delete of an adopted session = %d %s", got.status, got.body)
	}
}

// TestOpenRemovesStrangers: a sandbox without a living record goes.
func TestOpenRemovesStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	if _, err := n.driver.Create(t.Context(), sandbox.Spec{ID: "s-unknown", Image: "python"}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	w.start()
	w.eventually("stranger removed", func() bool { return len(w.host.IDs()) == 0 })
}
