package manager_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestKilledAtEveryStepOfSleep is TestKilledAtEveryStep for a life with a pause,
// a resume, forks and a checkpoint.
func TestKilledAtEveryStepOfSleep(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for step := 1; ; step++ {
			l := &life{end: step, after: after}
			t.Run(fmt.Sprintf("step %d after=%t", step, after), func(t *testing.T) { killAsleepAt(t, l) })
			if !l.isDead() {
				if step < 20 {
					t.Errorf("the scenario has only %d operations", step-1)
				}
				break
			}
		}
	}
}

// told is what a client was told in a life that may have ended at any moment.
type told struct {
	id            string
	state         api.State // of the session; "" when the last answer failed
	forks         []string
	kept, deleted bool // the checkpoint
	child         string
}

func killAsleepAt(t *testing.T, l *life) {
	w := newWorld(t)
	w.wrapStore = func(s manager.Store) manager.Store { return mortalStore{s, l} }
	w.wrap = func(d sandbox.Full) sandbox.Full { return mortalDriver{d, l} }
	n := w.start()
	heard := n.sleepyLife()
	died := l.isDead()
	n.stop()

	w.wrapStore, w.wrap = nil, nil
	n = w.start()
	w.eventually("records, sandboxes and snapshots agree", func() bool { return w.consistent() && w.consistentSnapshots() })
	if !died && !heard.deleted {
		t.Errorf("the life did not come to its end: %+v", heard)
	}
	if heard.id == "" {
		return
	}
	if got := w.record(heard.id); got.Ended() || heard.state != "" && got.State != heard.state {
		t.Errorf("the client heard that its session is %q, it is %q %q", heard.state, got.State, got.Fate)
	}
	n.must(heard.id, "resume")
	for _, id := range append(heard.forks, heard.child) {
		if id != "" && w.record(id).State != api.StateRunning {
			t.Errorf("a session that was acknowledged is %q", w.record(id).State)
		}
	}
	_, err := w.store.GetCheckpoint(context.Background(), "alice", "kept")
	if gone := errors.Is(err, session.ErrNoCheckpoint); heard.deleted && !gone || heard.kept && gone {
		t.Errorf("checkpoint: %v, the client heard %+v", err, heard)
	}
}

// sleepyLife does one thing after the other until one fails.
func (n *node) sleepyLife() (heard told) {
	post := func(path, body string) (answer, bool) {
		got := n.do(n.t.Context(), "alice", "POST", path, body)
		return got, got.status == http.StatusOK
	}
	got, ok := post(createPath, createBody)
	if !ok {
		return heard
	}
	var made api.CreateResponse
	got.decode(n.t, &made)
	heard.id, heard.state = made.SessionID, api.StateRunning
	path := "/v1/sessions/" + made.SessionID
	if heard.state = ""; !second(post(path+"/pause", "")) {
		return heard
	}
	heard.state = api.StatePaused
	heard.kept = second(post(path+"/checkpoints", `{"name":"kept"}`))
	if !heard.kept {
		return heard
	}
	if heard.state = ""; !second(post(path+"/resume", "")) {
		return heard
	}
	heard.state = api.StateRunning
	got, ok = post(path+"/fork", `{"count":2}`)
	if !ok {
		return heard
	}
	var forks api.ForkResponse
	got.decode(n.t, &forks)
	for _, f := range forks.Sessions {
		heard.forks = append(heard.forks, f.SessionID)
	}
	got, ok = post(createPath, `{"checkpoint":"kept"}`)
	if !ok {
		return heard
	}
	got.decode(n.t, &made)
	heard.child, heard.kept = made.SessionID, false // what an unanswered delete did is not known
	heard.deleted = n.do(n.t.Context(), "alice", "DELETE", "/v1/checkpoints/kept", "").status == http.StatusOK
	return heard
}

func second[T any](_ T, ok bool) bool { return ok }

// consistentSnapshots reports whether exactly the checkpoints have snapshots.
func (w *world) consistentSnapshots() bool {
	all, err := w.store.ListCheckpoints(context.Background(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	var want []string
	for _, c := range all {
		want = append(want, c.Snapshot)
	}
	slices.Sort(want)
	return slices.Equal(want, w.host.Snapshots())
}
