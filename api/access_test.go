package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
)

// tokens visits what is about tokens.
func (tr *tour) tokens() {
	t := tr.t
	t.Helper()
	tr.step("GET", "/v1/tokens", "", 200) // none
	var made api.CreatedToken
	if err := json.Unmarshal(tr.step("POST", "/v1/tokens", `{"name":"ci","scopes":["use"],"ttl":60}`, 200), &made); err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	tr.step("POST", "/v1/tokens", `{"name":"ops.2","scopes":["admin","use","create"],"expiresAt":"`+ends+`"}`, 200)
	tr.step("POST", "/v1/tokens", `{"name":"for-ever","scopes":["create"],"ttl":null}`, 200)
	tr.step("POST", "/v1/tokens", `{"name":"ci","scopes":["use"]}`, 409)
	tr.step("POST", "/v1/tokens", `{"name":"Ci","scopes":["use"]}`, 400)
	tr.step("POST", "/v1/tokens", `{"name":"`+strings.Repeat("x", 17<<10)+`"}`, 413)
	ci := []string{"Authorization", "Bearer " + made.Token}
	tr.step("GET", "/v1/sessions", "", 200, ci...)
	for _, method := range []string{"GET", "POST"} {
		tr.step(method, "/v1/tokens", "{}", 403, ci...)
		tr.step(method, "/v1/tokens", "{}", 401, "Authorization", "")
	}
	tr.step("POST", "/v1/code-interpreter", `{"name":"python","namespace":"default"}`, 403, ci...)
	tr.step("GET", "/v1/sessions?all=true", "", 403, ci...)
	tr.step("DELETE", "/v1/tokens/ci", "", 403, ci...)
	var page api.TokenList
	if err := json.Unmarshal(tr.step("GET", "/v1/tokens?limit=2", "", 200), &page); err != nil {
		t.Fatal(err)
	}
	tr.step("GET", "/v1/tokens?limit=2&pageToken="+page.NextPageToken, "", 200)
	tr.step("GET", "/v1/tokens?limit=no", "", 400)
	tr.step("DELETE", "/v1/tokens/ci", "", 200)
	tr.step("DELETE", "/v1/tokens/ci", "", 200)
	tr.step("DELETE", "/v1/tokens/nobody", "", 404)
	tr.step("GET", "/v1/tokens?all=true", "", 200)
	tr.step("GET", "/v1/sessions", "", 401, ci...)
}

// estate is what alice has, and what others try to get at.
type estate struct {
	t       *testing.T
	handler http.Handler
	root    string
	alice   string
}

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{t: t, root: "ac_" + strings.Repeat("x", 43)}
	e.handler = servePlanes(t, e.root, func(spec sandbox.Spec) map[uint16]http.Handler {
		return map[uint16]http.Handler{sandbox.AgentPort: fake.NewAgent(spec)}
	})
	e.alice = e.token("alice", auth.ScopeCreate|auth.ScopeUse)
	return e
}

// ask sends a request and returns status and body, without what differs each time.
func (e *estate) ask(token, method, path, body string, header ...string) (int, string) {
	r := httptest.NewRequest(method, "http://localhost:8080"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set(api.HeaderRequestID, "test")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	e.handler.ServeHTTP(rec, r)
	var failed api.Error
	if rec.Code < 400 || json.Unmarshal(rec.Body.Bytes(), &failed) != nil {
		return rec.Code, rec.Body.String()
	}
	return rec.Code, fmt.Sprint(failed.Code, ": ", failed.Text, "; ", failed.Hint, "; ", rec.Header().Get(api.HeaderSessionID))
}

func (e *estate) must(token, method, path, body string, out any) {
	e.t.Helper()
	status, text := e.ask(token, method, path, body)
	if status != http.StatusOK || out != nil && json.Unmarshal([]byte(text), out) != nil {
		e.t.Fatalf("%s %s = %d %s", method, path, status, text)
	}
}

func (e *estate) token(name string, scopes auth.Scopes) string {
	e.t.Helper()
	body, _ := json.Marshal(api.TokenRequest{Name: name, Scopes: scopes.Names()})
	var made api.CreatedToken
	e.must(e.root, "POST", "/v1/tokens", string(body), &made)
	return made.Token
}

const (
	pythonBody = `{"name":"python","namespace":"default"}`
	writeBody  = `{"path":"f","content":""}`
	unknownID  = "5b1f1c2e-1111-4222-8333-444444444444"
)

// session makes a managed one.
func (e *estate) session(token string) string {
	e.t.Helper()
	var made api.CreateResponse
	e.must(token, "POST", "/v1/code-interpreter", pythonBody, &made)
	return made.SessionID
}

// operation is one of the description.
type operation struct {
	method, path string
	needs        []auth.Scopes // of which one
}

func operations(t *testing.T) []operation {
	t.Helper()
	tr := newTour(t)
	model, err := tr.doc.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			if needs := needsOf(t, op); len(needs) > 0 {
				all = append(all, operation{strings.ToUpper(method), path, needs})
			}
		}
	}
	return all
}

func needsOf(t *testing.T, op *v3.Operation) (needs []auth.Scopes) {
	t.Helper()
	if op.Security == nil {
		t.Errorf("%s does not say what scopes it needs", op.OperationId)
	}
	for _, one := range op.Security {
		for scheme, names := range one.Requirements.FromOldest() {
			var scopes []api.Scope
			for _, name := range names {
				scopes = append(scopes, api.Scope(name))
			}
			set, err := auth.ParseScopes(scopes)
			if scheme != "bearer" || err != nil || len(names) != 1 {
				t.Errorf("%s needs %s %q, %v", op.OperationId, scheme, names, err)
			}
			needs = append(needs, set)
		}
	}
	return needs
}

func (o operation) allows(have auth.Scopes) bool {
	return slices.ContainsFunc(o.needs, have.Has)
}

// request fills an operation's path in, about something that there is or is not,
// and is its body.
func (o operation) request(session, checkpoint, token string) (path, body string) {
	path = strings.NewReplacer(
		"{sessionId}", session, "{checkpoint}", checkpoint+"?owner=alice", "{token}", token, "{namespace}", "default", "{name}", "python",
	).Replace(o.path)
	bodies := map[string]string{
		"/v1/code-interpreter": pythonBody, "/v1/agent-runtime": `{"name":"agent","namespace":"default"}`,
		"/v1/sessions/{sessionId}/checkpoints": `{"name":"stolen"}`, "/v1/tokens": `{"name":"stolen","scopes":["admin"]}`,
	}
	if o.method == "POST" {
		body = bodies[o.path]
	}
	return path, body
}

// TestNoScopesReachMore: whatever scopes a token has, it gets at no operation that
// is not described as theirs, and at nothing of another owner's but what the
// administrator's scope shows and ends. What exists and what does not are alike.
func TestNoScopesReachMore(t *testing.T) {
	t.Parallel()
	for _, op := range operations(t) {
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			t.Parallel()
			for have := auth.Scopes(1); have <= auth.AllScopes; have++ {
				e := newEstate(t)
				id := e.session(e.alice)
				e.must(e.alice, "POST", "/v1/sessions/"+id+"/checkpoints", `{"name":"kept"}`, nil)
				mallory := e.token("mallory", have)
				path, body := op.request(id, "kept", "alice")
				status, text := e.ask(mallory, op.method, path, body)
				blind, body := op.request(unknownID, "none", "nobody")
				blindStatus, blindText := e.ask(mallory, op.method, blind, body)
				blindText = strings.NewReplacer(unknownID, id, "none", "kept").Replace(blindText)
				what := fmt.Sprintf("with the scopes %s: %d %s", have, status, text)
				if !op.allows(have) {
					if status != 403 || !strings.HasPrefix(text, "FORBIDDEN: the token lacks the scope ") || blindStatus != status || blindText != text {
						t.Errorf("%s, want 403, and %d %s to be the same", what, blindStatus, blindText)
					}
					e.untouched(id)
					continue
				}
				if status == 403 {
					t.Errorf("%s, which are enough", what)
				}
				if op.path == blindPath(op) {
					continue // it is about nothing of alice's
				}
				if !have.Has(auth.ScopeAdmin) {
					if status != 404 || blindStatus != status || blindText != text {
						t.Errorf("%s, want 404, and %d %s to be the same", what, blindStatus, blindText)
					}
					e.untouched(id)
				} else if slices.Contains(op.needs, auth.ScopeAdmin) {
					if status != 200 {
						t.Errorf("%s, want an administrator to be let", what)
					}
				} else if status != 404 {
					t.Errorf("%s, want an administrator to see and not to use", what)
					e.untouched(id)
				}
			}
		})
	}
}

// blindPath is the path of an operation without what is in it of others.
func blindPath(o operation) string {
	return strings.NewReplacer("{sessionId}", "", "{checkpoint}", "", "{token}", "").Replace(o.path)
}

// untouched wants all of alice's as it was: her session runs and serves her, her
// checkpoint and her token are there, and there are no others.
func (e *estate) untouched(id string) {
	e.t.Helper()
	var sessions api.SessionList
	e.must(e.root, "GET", "/v1/sessions?all=true&state=running", "", &sessions)
	var checkpoints api.CheckpointList
	e.must(e.root, "GET", "/v1/checkpoints?all=true", "", &checkpoints)
	var tokens api.TokenList
	e.must(e.root, "GET", "/v1/tokens", "", &tokens)
	if len(sessions.Sessions) != 1 || len(checkpoints.Checkpoints) != 1 || len(tokens.Tokens) != 2 {
		e.t.Errorf("%d sessions run, there are %d checkpoints and %d tokens; want 1, 1, 2",
			len(sessions.Sessions), len(checkpoints.Checkpoints), len(tokens.Tokens))
	}
	if status, text := e.ask(e.alice, "POST", invoke+"api/files", writeBody, api.HeaderSessionID, id); status != 200 {
		e.t.Errorf("alice's request = %d %s", status, text)
	}
}

const invoke = "/v1/namespaces/default/code-interpreters/python/invocations/"

// TestNoScopesUseMore is the same for the Router.
func TestNoScopesUseMore(t *testing.T) {
	t.Parallel()
	e := newEstate(t)
	hers := e.session(e.alice)
	for have := auth.Scopes(1); have <= auth.AllScopes; have++ {
		name := "t" + strings.ReplaceAll(have.String(), ",", "-")
		token := e.token(name, have)
		for _, method := range []string{"GET", "POST"} {
			status, text := e.ask(token, method, invoke+"x", "", api.HeaderSessionID, hers)
			_, unknown := e.ask(token, method, invoke+"x", "", api.HeaderSessionID, unknownID)
			if have.Has(auth.ScopeAdmin) { // who may know, and is told
				text = strings.Replace(text, auth.SeenOnly, "", 1)
			}
			if status != 404 || text != strings.ReplaceAll(unknown, unknownID, hers) {
				t.Errorf("%s another's session with the scopes %s: %d %s, want 404 as of one that is not there: %s", method, have, status, text, unknown)
			}
		}
		write := func(id string) (int, string) {
			header := []string{api.HeaderSessionID, id}
			return e.ask(token, "POST", invoke+"api/files", writeBody, header[:2*min(len(id), 1)]...)
		}
		status, text := write("") // makes one and uses it
		for _, scope := range []auth.Scopes{auth.ScopeCreate, auth.ScopeUse} {
			if lacks := !have.Has(scope); lacks && (status != 403 || !strings.Contains(text, "lacks the scope")) {
				t.Errorf("no session, with the scopes %s: %d %s, want 403", have, status, text)
			}
		}
		if have.Has(auth.ScopeCreate|auth.ScopeUse) != (status == 200) {
			t.Errorf("no session, with the scopes %s: %d %s", have, status, text)
		}
		if have.Has(auth.ScopeCreate) {
			own := e.session(token)
			status, text = write(own)
			if have.Has(auth.ScopeUse) != (status == 200) || status != 200 && (status != 403 || !strings.Contains(text, "lacks the scope use")) {
				t.Errorf("its own session with the scopes %s: %d %s", have, status, text)
			}
			e.must(e.root, "DELETE", "/v1/sessions/"+own, "", nil)
		}
		e.endAllBut(hers)
	}
}

func (e *estate) endAllBut(id string) {
	e.t.Helper()
	var page api.SessionList
	e.must(e.root, "GET", "/v1/sessions?all=true&state=running", "", &page)
	for _, s := range page.Sessions {
		if s.SessionID != id {
			e.must(e.root, "DELETE", "/v1/sessions/"+s.SessionID, "", nil)
		}
	}
}
