package manager_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/template"
)

func strictTemplate() template.Template {
	return template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: "strict", Image: "python", Workspace: "/workspace",
		AuthMode: template.AuthPicoD, Strict: true, IdleTimeout: time.Hour, MaxDuration: time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 8080}},
	}
}

// TestStrict: a strict template's sessions have a key, PicoD is told, and so are
// those of their copies.
func TestStrict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates = append(w.templates, strictTemplate())
	n := w.start()
	got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"strict","namespace":"default"}`)
	if got.status != 400 || !strings.Contains(got.body, "publicKey is required") {
		t.Errorf("without a key: %d %s", got.status, got.body)
	}
	body := fmt.Sprintf(`{"name":"strict","namespace":"default","publicKey":%q}`, clientKey(t))
	var made api.CreateResponse
	got = n.do(t.Context(), "alice", "POST", createPath, body)
	got.decode(t, &made)
	if got.status != 200 || !made.Session.Strict {
		t.Fatalf("with a key: %d %s", got.status, got.body)
	}
	if init := w.agents.bodies[made.SandboxID]; !strings.Contains(init, `"strict":true`) {
		t.Errorf("PicoD was told %s", init)
	}
	if lax := n.create(); lax.Session.Strict || strings.Contains(w.agents.bodies[lax.SandboxID], "strict") {
		t.Errorf("another template's session is strict: %+v", lax.Session)
	}
}

// TestStrictUnknown: a PicoD that does not say that it is strict gets no session.
func TestStrictUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates = append(w.templates, strictTemplate())
	w.agents.lax = true
	n := w.start()
	body := fmt.Sprintf(`{"name":"strict","namespace":"default","publicKey":%q}`, clientKey(t))
	if got := n.do(t.Context(), "alice", "POST", createPath, body); got.status != 500 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if ids := w.host.IDs(); len(ids) > 0 {
		t.Errorf("left: %q", ids)
	}
}
