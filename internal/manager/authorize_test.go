package manager_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/manager"
)

// ruled is a node that asks rules, with a session of alice and a checkpoint of it.
func ruled(t *testing.T) (n *node, rules *authtest.Rules, id string) {
	t.Helper()
	rules = &authtest.Rules{}
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.Authorizer = rules }
	n = w.start()
	id = n.create().SessionID
	if got := n.do(t.Context(), "alice", "POST", "/v1/sessions/"+id+"/checkpoints", `{"name":"first"}`); got.status != 200 {
		t.Fatalf("checkpoint = %d %s", got.status, got.body)
	}
	return n, rules, id
}

// TestAuthorize: what needs which leave, of which template; who has none is told so
// and gets nothing.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	n, rules, id := ruled(t)
	of := auth.TemplateRef{Kind: api.KindCodeInterpreter, Namespace: "default", Name: "simple-codeinterpreter"}
	unknown, agent := of, of
	unknown.Name, agent.Kind = "nothing", api.KindAgentRuntime
	for _, test := range []struct {
		path, body string
		verb       auth.Verb
		of         auth.TemplateRef
	}{
		{createPath, `{"name":"simple-codeinterpreter","namespace":"default"}`, auth.VerbCreate, of},
		{createPath, `{"name":"nothing","namespace":"default"}`, auth.VerbCreate, unknown},
		{"/v1/agent-runtime", `{"name":"simple-codeinterpreter","namespace":"default"}`, auth.VerbCreate, agent},
		{createPath, `{"checkpoint":"first"}`, auth.VerbCreate, of},
		{"/v1/sessions/" + id + "/fork", `{}`, auth.VerbCreate, of},
		{"/v1/sessions/" + id + "/checkpoints", `{"name":"second"}`, auth.VerbCreate, of},
		{"/v1/templates/default/simple-codeinterpreter/prepare", ``, auth.VerbCreate, of},
		{"/v1/templates/default/nothing/prepare", ``, auth.VerbCreate, unknown},
		{"/v1/sessions/" + id + "/pause", ``, auth.VerbUse, of},
		{"/v1/sessions/" + id + "/resume", ``, auth.VerbUse, of},
	} {
		rules.Refuse(test.verb)
		got := n.do(t.Context(), "alice", "POST", test.path, test.body)
		if got.status != 403 || !strings.Contains(got.body, "you may not "+string(test.verb)) {
			t.Errorf("%s %s = %d %s", test.path, test.body, got.status, got.body)
		}
		want := []authtest.Asked{{Who: "alice", Verb: test.verb, Of: test.of}}
		if diff := cmp.Diff(want, rules.Asked()); diff != "" {
			t.Errorf("%s %s asks (-want +got):\n%s", test.path, test.body, diff)
		}
	}
	var all api.SessionList
	n.do(t.Context(), "alice", "GET", "/v1/sessions", "").decode(t, &all)
	if len(all.Sessions) != 1 || all.Sessions[0].State != api.StateRunning {
		t.Errorf("there are %+v", all.Sessions)
	}
}

// TestAuthorizeOwn: to see and to end what is one's own needs nobody's leave, and
// nobody's session but one's own is asked about.
func TestAuthorizeOwn(t *testing.T) {
	t.Parallel()
	n, rules, id := ruled(t)
	rules.Refuse(auth.VerbCreate, auth.VerbUse)
	for _, who := range []string{"bob", "root"} {
		for _, verb := range []string{"pause", "resume", "fork", "checkpoints"} {
			wantCode(t, n.do(t.Context(), who, "POST", "/v1/sessions/"+id+"/"+verb, `{"name":"x"}`), 404, api.CodeSessionNotFound)
		}
	}
	wantCode(t, n.do(t.Context(), "bob", "POST", createPath, `{"checkpoint":"first"}`), 404, api.CodeCheckpointNotFound)
	for _, request := range [][2]string{
		{"GET", "/v1/sessions"}, {"GET", "/v1/sessions/" + id}, {"GET", "/v1/checkpoints"},
		{"DELETE", "/v1/checkpoints/first"}, {"DELETE", "/v1/sessions/" + id},
	} {
		if got := n.do(t.Context(), "alice", request[0], request[1], ""); got.status != 200 {
			t.Errorf("%v = %d %s", request, got.status, got.body)
		}
	}
	if asked := rules.Asked(); len(asked) != 0 {
		t.Errorf("asked for %+v", asked)
	}
}

// allowing is an Authorizer that allows what it says.
type allowing func(auth.TemplateRef) bool

func (may allowing) Authorize(_ context.Context, _ auth.Principal, _ auth.Verb, of auth.TemplateRef) error {
	if !may(of) {
		return api.Errorf(http.StatusForbidden, api.CodeForbidden, "you may not do that")
	}
	return nil
}

// TestOthersAreNotNamed: who names a template that is not there is told of others only
// where those may be used.
func TestOthersAreNotNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, kind := range []string{api.KindCodeInterpreter, api.KindAgentRuntime} {
		secret := w.templates[0]
		secret.Kind, secret.Namespace, secret.Name = kind, "team", "simple-secret"
		w.templates = append(w.templates, secret)
	}
	agent := w.templates[0]
	agent.Kind, agent.Name = api.KindAgentRuntime, "agent"
	w.templates = append(w.templates, agent)
	may := func(of auth.TemplateRef) bool {
		return of.Namespace == "default" && (of.Kind == api.KindCodeInterpreter || of.Name == "simple-codeinterpreted")
	}
	w.config = func(c *manager.Config) { c.Authorizer = allowing(may) }
	n := w.start()
	got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreted","namespace":"default"}`)
	wantCode(t, got, 404, api.CodeTemplateNotFound)
	if !strings.Contains(got.body, "did you mean default/simple-codeinterpreter?") {
		t.Errorf("answer %s", got.body)
	}
	// Nor is a template of the same name, but of a kind that may not be used.
	other := w.templates[len(w.templates)-1]
	got = n.do(t.Context(), "alice", "POST", createPath, `{"name":"`+other.Name+`","namespace":"default"}`)
	wantCode(t, got, 404, api.CodeTemplateNotFound)
	if strings.Contains(got.body, "is of kind") {
		t.Errorf("answer %s", got.body)
	}
}
