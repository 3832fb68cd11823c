package manager_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// recorded keeps events in memory.
type recorded struct {
	mu     sync.Mutex
	events []record.Event
	failed error
}

func (r *recorded) Append(e record.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorded) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// find returns the first event of an action that is about a session.
func (r *recorded) find(action record.Action, session string) (record.Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.events, func(e record.Event) bool { return e.Action == action && e.Session == session })
	if i < 0 {
		return record.Event{}, false
	}
	return r.events[i], true
}

func TestControlIsRecorded(t *testing.T) {
	t.Parallel()
	log := &recorded{}
	w := newWorld(t)
	w.config = func(cfg *manager.Config) { cfg.Audit = log }
	n := w.start()
	id := n.create("X-Request-Id", "r-1").SessionID
	forked := n.do(t.Context(), "alice", "POST", "/v1/sessions/"+id+"/fork", "", "X-Request-Id", "r-2")
	var forks api.ForkResponse
	forked.decode(t, &forks)
	copied := forks.Sessions[0].SessionID
	n.do(t.Context(), "alice", "POST", "/v1/sessions/"+id+"/pause", "", "X-Request-Id", "r-3")
	n.do(t.Context(), "alice", "POST", "/v1/sessions/"+id+"/resume", "", "X-Request-Id", "r-4")
	n.do(t.Context(), "bob", "DELETE", "/v1/sessions/"+id, "", "X-Request-Id", "r-5")
	n.do(t.Context(), "root", "DELETE", "/v1/sessions/"+id, "", "X-Request-Id", "r-6")
	for _, want := range []record.Event{
		{Action: record.SessionCreated, Actor: "alice", Owner: "alice", Session: id, RequestID: "r-1", Template: "default/simple-codeinterpreter", Auth: "managed"},
		{Action: record.SessionForked, Actor: "alice", Owner: "alice", Session: copied, Parent: id, RequestID: "r-2", Template: "default/simple-codeinterpreter", Auth: "managed"},
		{Action: record.SessionPaused, Actor: "alice", Owner: "alice", Session: id, RequestID: "r-3"},
		{Action: record.SessionResumed, Actor: "alice", Owner: "alice", Session: id, RequestID: "r-4"},
		{Action: record.Refused, Actor: "bob", RequestID: "r-5", Method: "DELETE", Path: "/v1/sessions/" + id, Status: 404, Code: "SESSION_NOT_FOUND"},
		{Action: record.SessionEnded, Actor: "root", Owner: "alice", Session: id, RequestID: "r-6", Fate: "deleted", Reason: "deleted by an administrator"},
	} {
		got, ok := log.find(want.Action, want.Session)
		got.From = ""
		if !ok || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("recorded %+v, want %+v", got, want)
		}
	}
	// What nobody asks for AgentCube does by itself.
	if err := w.host.Exit("s-"+copied, sandbox.ExitOutOfMemory, ""); err != nil {
		t.Fatal(err)
	}
	w.eventuallyEnded(copied, api.FateOutOfMemory)
	w.eventually("the end is recorded", func() bool {
		e, ok := log.find(record.SessionEnded, copied)
		return ok && e.Actor == record.ActorSystem
	})
}

// A session that has a certificate is asked for a statement before it sleeps and when
// it has ended, and is not believed without one.
func TestSealIsDemanded(t *testing.T) {
	t.Parallel()
	log := &recorded{}
	w := newWorld(t)
	w.config = func(cfg *manager.Config) { cfg.Audit, cfg.EndToEnd = log, true }
	n := w.start()
	id := n.create().SessionID
	if _, err := w.store.Update(t.Context(), id, func(s *session.Session) error {
		s.Certificate = "none that signs"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, "")
	w.eventually("it is recorded that there is no statement", func() bool {
		e, ok := log.find(record.SessionSealed, id)
		return ok && e.Seal.Statement == "" && e.Seal.Missing != ""
	})
}

func TestNothingIsDoneUnrecorded(t *testing.T) {
	t.Parallel()
	log := &recorded{}
	w := newWorld(t)
	w.config = func(cfg *manager.Config) { cfg.Audit = log }
	n := w.start()
	id := n.create().SessionID
	log.mu.Lock()
	log.failed = fmt.Errorf("%w: no space", audit.ErrUnavailable)
	log.mu.Unlock()
	for _, path := range []string{createPath, "/v1/sessions/" + id + "/fork", "/v1/sessions/" + id + "/pause", "/v1/tokens"} {
		got := n.do(t.Context(), "root", "POST", path, `{"name":"simple-codeinterpreter","namespace":"default"}`)
		if got.status != 503 || !strings.Contains(got.body, string(api.CodeAuditUnavailable)) {
			t.Errorf("POST %s: %d %s", path, got.status, got.body)
		}
	}
	// What makes room is not kept from doing so.
	if got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, ""); got.status != 200 {
		t.Errorf("DELETE: %d %s", got.status, got.body)
	}
}
