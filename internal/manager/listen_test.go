package manager_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/template"
)

const (
	agentPath = "/v1/agent-runtime"
	agentBody = `{"name":"agent","namespace":"default"}`
)

// newAgents is a world whose template is an agent that serves on two ports.
func newAgents(t *testing.T) *world {
	w := newWorld(t)
	tmpl := python("agent")
	tmpl.Kind, tmpl.AuthMode = api.KindAgentRuntime, template.AuthNone
	tmpl.Args, tmpl.WorkingDir, tmpl.User = []string{"serve"}, "/srv", &sandbox.User{UID: 7}
	tmpl.Ports = []template.Port{
		{Path: "/", Protocol: "HTTP", Port: 9000}, {Path: "/b", Protocol: "HTTP", Port: 9001}, {Path: "/c", Protocol: "HTTP", Port: 9000},
	}
	w.templates = append(w.templates, tmpl)
	nothing := http.NotFoundHandler()
	w.host = fake.NewHost(func(sandbox.Spec) map[uint16]http.Handler {
		return map[uint16]http.Handler{9000: nothing, 9001: nothing}
	})
	return w
}

// TestAgentListens: a session of an agent is there when each of its ports takes
// connections, and not before.
func TestAgentListens(t *testing.T) {
	t.Parallel()
	w := newAgents(t)
	var looked [2]atomic.Int32
	w.hooks.Dial = func(_ context.Context, _ string, port uint16) error {
		if looked[port-9000].Add(1) < 4 {
			return sandbox.ErrRefused
		}
		return nil
	}
	n := w.start()
	got := n.do(t.Context(), "alice", "POST", agentPath, agentBody)
	var out api.CreateResponse
	got.decode(t, &out)
	if got.status != http.StatusOK || out.Session.State != api.StateRunning || out.Session.Auth != api.AuthNone {
		t.Fatalf("create = %d %s", got.status, got.body)
	}
	if a, b := looked[0].Load(), looked[1].Load(); a != 4 || b != 4 {
		t.Errorf("ports were looked at %d and %d times, want 4 each: until they took a connection", a, b)
	}
	spec, _ := w.host.Spec(out.SandboxID)
	if !spec.OwnServer || spec.WorkingDir != "/srv" || spec.User == nil || spec.User.UID != 7 || spec.BootstrapKey != "" {
		t.Errorf("spec = %+v", spec)
	}
	// A copy is as its origin was: there is nothing to wait for.
	fork := n.do(t.Context(), "alice", "POST", "/v1/sessions/"+out.SessionID+"/fork", `{}`)
	if fork.status != http.StatusOK || looked[0].Load() != 4 {
		t.Errorf("fork = %d %s, looked at %d times", fork.status, fork.body, looked[0].Load())
	}
}

// TestAgentDoesNotListen: its maker hears why there is no session, and nothing of
// it is left.
func TestAgentDoesNotListen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		set    func(w *world)
		status int
		text   string
		hint   string
	}{
		{"never", func(w *world) {
			w.config = func(c *manager.Config) { c.CreateTimeout = 200 * time.Millisecond }
			w.hooks.Dial = func(_ context.Context, _ string, port uint16) error {
				if port == 9001 {
					return sandbox.ErrRefused
				}
				return nil
			}
		}, 504, "the template's server did not listen on port 9001 within 100ms", "sandboxCreateTimeout"},
		{"it ends", func(w *world) {
			w.hooks.Dial = func(_ context.Context, id string, _ uint16) error {
				if err := w.host.Exit(id, sandbox.ExitOutOfMemory, "it was too large"); err != nil {
					return err // it has ended before
				}
				return sandbox.ErrRefused
			}
		}, 502, "the template's server ended before it listened on port 9000", "it was too large; run its command"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newAgents(t)
			test.set(w)
			n := w.start()
			got := n.do(t.Context(), "alice", "POST", agentPath, agentBody)
			var e api.Error
			got.decode(t, &e)
			if got.status != test.status || e.Code != api.CodeServerNotListening || e.Text != test.text || !strings.Contains(e.Hint, test.hint) {
				t.Errorf("create = %d %s", got.status, got.body)
			}
			if ids := w.host.IDs(); len(ids) != 0 {
				t.Errorf("sandboxes left: %v", ids)
			}
		})
	}
}

// TestAgentGivesNoAnswer: an attempt that nobody answers is not the last one.
func TestAgentGivesNoAnswer(t *testing.T) {
	t.Parallel()
	w := newAgents(t)
	var looked atomic.Int32
	w.hooks.Dial = func(ctx context.Context, _ string, _ uint16) error {
		if looked.Add(1) == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	if got := w.start().do(t.Context(), "alice", "POST", agentPath, agentBody); got.status != http.StatusOK {
		t.Errorf("create = %d %s", got.status, got.body)
	}
}
