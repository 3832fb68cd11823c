package manager_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/template"
)

// TestContractAnswers holds the answers that older clients read to their
// bytes; timestamps are blanked.
func TestContractAnswers(t *testing.T) {
	t.Parallel()
	const (
		jsonType = "application/json; charset=utf-8"
		id       = "5b1f1c2e-1111-4222-8333-444444444444"
	)
	failure := func(text, code, extra string) string {
		return `{"error":"` + text + `","code":"` + code + `","message":"` + text + `",` + extra +
			`"requestId":"test-1","timestamp":"T"}`
	}
	long := strings.Repeat("x", 254)
	for _, test := range []struct {
		name, who, method, path, body string
		status                        int
		contentType, want             string
	}{
		{"health", "", "GET", "/health", "", 200, jsonType, `{"status":"healthy"}`},
		{"unknown route", "", "GET", "/v1/nothing", "", 404, "text/plain", `404 page not found`},
		{"wrong method", "alice", "PUT", createPath, "", 404, "text/plain", `404 page not found`},
		{"wrong method on a session", "alice", "GET", createPath + "/sessions/" + id, "", 404, "text/plain", `404 page not found`},
		{"HEAD", "", "HEAD", "/health", "", 404, "text/plain", `404 page not found`},
		{"HEAD on sessions", "alice", "HEAD", "/v1/sessions", "", 404, "text/plain", `404 page not found`},
		{"HEAD on a session", "alice", "HEAD", "/v1/sessions/" + id, "", 404, "text/plain", `404 page not found`},

		{"no credentials", "", "POST", createPath, `{}`, 401, jsonType, failure("Missing authorization header", "UNAUTHORIZED", "")},
		{"wrong credentials", "eve", "POST", createPath, `{}`, 401, jsonType, failure("Invalid or expired token", "UNAUTHORIZED", "")},
		{"no credentials on delete", "", "DELETE", createPath + "/sessions/" + id, "", 401, jsonType, failure("Missing authorization header", "UNAUTHORIZED", "")},

		{"not JSON", "alice", "POST", createPath, `name=x`, 400, jsonType, failure("Invalid request body", "INVALID_REQUEST", "")},
		{"empty body", "alice", "POST", createPath, ``, 400, jsonType, failure("Invalid request body", "INVALID_REQUEST", "")},
		{"two values", "alice", "POST", createPath, `{} {}`, 400, jsonType, failure("Invalid request body", "INVALID_REQUEST", "")},
		{"name of the wrong type", "alice", "POST", createPath, `{"name":1}`, 400, jsonType,
			failure("Invalid request body", "INVALID_REQUEST", `"hint":"field \"name\" must not be a number",`)},
		{"name missing", "alice", "POST", createPath, `{"namespace":"default"}`, 400, jsonType, failure("name is required", "INVALID_REQUEST", "")},
		{"namespace missing", "alice", "POST", createPath, `{"name":"a"}`, 400, jsonType, failure("namespace is required", "INVALID_REQUEST", "")},
		{"name too long", "alice", "POST", createPath, `{"namespace":"default","name":"` + long + `"}`, 400, jsonType,
			failure("name is longer than 253 bytes", "INVALID_REQUEST", "")},
		{"ttl negative", "alice", "POST", createPath, `{"name":"a","namespace":"b","ttl":-1}`, 400, jsonType, failure("ttl must not be negative", "INVALID_REQUEST", "")},
		{"ttl absurd", "alice", "POST", createPath, `{"name":"a","namespace":"b","ttl":315360001}`, 400, jsonType,
			failure("ttl must not be longer than ten years", "INVALID_REQUEST", `"hint":"ttl is in seconds",`)},
		{"metadata not strings", "alice", "POST", createPath, `{"name":"a","namespace":"b","metadata":{"n":1}}`, 400, jsonType,
			failure("Invalid request body", "INVALID_REQUEST", `"hint":"field \"metadata\" must not be a number",`)},
		{"metadata null", "alice", "POST", createPath, `{"name":"a","namespace":"b","metadata":{"n":null}}`, 400, jsonType,
			failure("metadata values must be strings", "INVALID_REQUEST", "")},
		{"body null", "alice", "POST", createPath, `null`, 400, jsonType, failure("name is required", "INVALID_REQUEST", "")},
		{"key not base64", "alice", "POST", createPath, `{"name":"a","namespace":"b","publicKey":"?"}`, 400, jsonType,
			failure("publicKey: invalid public key: not base64 of the standard alphabet", "INVALID_REQUEST", "")},
		{"template unknown", "alice", "POST", createPath, `{"name":"simple","namespace":"default"}`, 404, jsonType,
			failure("code interpreter not found", "TEMPLATE_NOT_FOUND", `"hint":"did you mean default/simple-codeinterpreter?",`)},
		{"agent unknown", "alice", "POST", "/v1/agent-runtime", `{"name":"x","namespace":"default"}`, 404, jsonType,
			failure("agent runtime not found", "TEMPLATE_NOT_FOUND", `"hint":"H",`)},

		{"delete unknown", "alice", "DELETE", createPath + "/sessions/" + id, "", 404, jsonType,
			failure(`Session ID \"`+id+`\" not found, maybe already deleted`, "SESSION_NOT_FOUND", "")},
		{"delete unknown agent", "alice", "DELETE", "/v1/agent-runtime/sessions/" + id, "", 404, jsonType,
			failure(`Session ID \"`+id+`\" not found, maybe already deleted`, "SESSION_NOT_FOUND", "")},
		{"get unknown", "alice", "GET", "/v1/sessions/" + id, "", 404, jsonType,
			failure(`Session ID \"`+id+`\" not found, maybe already deleted`, "SESSION_NOT_FOUND", "")},
		{"list, bad limit", "alice", "GET", "/v1/sessions?limit=0", "", 400, jsonType, failure("limit must be a number from 1 to 1000", "INVALID_REQUEST", "")},
		{"list, bad state", "alice", "GET", "/v1/sessions?state=dead", "", 400, jsonType,
			failure("state must be pending, running, paused or ended", "INVALID_REQUEST", "")},
		{"list, bad page", "alice", "GET", "/v1/sessions?pageToken=x", "", 400, jsonType, failure("malformed page token", "INVALID_REQUEST", "")},
		{"list of all by a user", "alice", "GET", "/v1/sessions?all=true", "", 403, jsonType,
			failure("the token lacks the scope admin", "FORBIDDEN", `"hint":"H",`)},
		{"empty list", "alice", "GET", "/v1/sessions", "", 200, jsonType, `{"sessions":[]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newWorld(t).start()
			got := n.do(t.Context(), test.who, test.method, test.path, test.body)
			body := regexp.MustCompile(`"timestamp":"[^"]+"`).ReplaceAllString(got.body, `"timestamp":"T"`)
			if strings.Contains(test.want, `"hint":"H"`) {
				body = regexp.MustCompile(`"hint":"[^"\\]*(\\.[^"\\]*)*"`).ReplaceAllString(body, `"hint":"H"`)
			}
			if got.status != test.status || body != test.want {
				t.Errorf("answer = %d %s\nwant     %d %s", got.status, body, test.status, test.want)
			}
			if ct := got.header.Get("Content-Type"); ct != test.contentType {
				t.Errorf("Content-Type = %q, want %q", ct, test.contentType)
			}
			if id := got.header.Get("X-Request-Id"); id != "test-1" {
				t.Errorf("X-Request-Id = %q, want the request's", id)
			}
			if challenge := got.header.Get("WWW-Authenticate"); (challenge != "") != (got.status == 401) {
				t.Errorf("status %d with WWW-Authenticate %q", got.status, challenge)
			}
		})
	}
}

// TestUncleanPaths: what a client sends whose base URL ends with a slash is
// redirected once, with method and body, and nowhere else.
func TestUncleanPaths(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start()
	for path, want := range map[string]string{
		"//v1/code-interpreter": "/v1/code-interpreter", "/v1//code-interpreter": "/v1/code-interpreter",
		"/v1/./code-interpreter?a=//b": "/v1/code-interpreter?a=//b", "/v1/x/../code-interpreter": "/v1/code-interpreter",
		"//elsewhere.example/v1": "/elsewhere.example/v1", "///elsewhere.example": "/elsewhere.example",
	} {
		got := n.do(t.Context(), "alice", "POST", path, createBody)
		if got.status != http.StatusTemporaryRedirect || got.header.Get("Location") != want {
			t.Errorf("%s = %d to %q, want 307 to %q", path, got.status, got.header.Get("Location"), want)
		}
		if again := n.do(t.Context(), "alice", "POST", want, createBody); again.header.Get("Location") != "" {
			t.Errorf("%s is redirected again, to %q", want, again.header.Get("Location"))
		}
	}
	for _, path := range []string{"/v1/code-interpreter/", "/v1/sessions/", "/health/", `/%5Celsewhere.example`, "/%2Felsewhere.example"} {
		if got := n.do(t.Context(), "alice", "POST", path, createBody); got.status != http.StatusNotFound {
			t.Errorf("%s = %d to %q, want 404", path, got.status, got.header.Get("Location"))
		}
	}
}

func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start()
	got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"`+strings.Repeat("x", 4<<20)+`"}`)
	var e api.Error
	got.decode(t, &e)
	if got.status != http.StatusRequestEntityTooLarge || e.Code != api.CodeBodyTooLarge {
		t.Errorf("answer = %d %s", got.status, e.Code)
	}
}

// TestCreateKeyBound is what the Python SDK sends and reads.
func TestCreateKeyBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default",
		"metadata":{"purpose":"test"},"publicKey":"`+clientKey(t)+`","unknown":{"field":[1]},"kind":7,"ttl":60}`)
	if got.status != http.StatusOK {
		t.Fatalf("create = %d %s", got.status, got.body)
	}
	var out api.CreateResponse
	got.decode(t, &out)
	sandboxID := "s-" + out.SessionID
	if out.Kind != "Sandbox" || out.SandboxID != sandboxID || out.SandboxName != sandboxID || out.OwnerID != "alice" ||
		len(out.EntryPoints) != 1 || out.EntryPoints[0] != (api.EntryPoint{Path: "/", Protocol: "HTTP", Endpoint: sandboxID + ":8080"}) {
		t.Errorf("response = %+v", out)
	}
	s := out.Session
	if s.State != api.StateRunning || s.Auth != api.AuthClientKey || s.Isolation != "none" ||
		s.ExpiresAt.Sub(s.CreatedAt) != time.Minute || s.IdleTimeoutSeconds != 900 || s.Metadata["purpose"] != "test" {
		t.Errorf("session = %+v", s)
	}
	claims := w.agents.claims[sandboxID]
	if claims["purpose"] != "sandbox_init" || claims["sessionId"] != out.SessionID || claims["sandboxId"] != sandboxID ||
		claims["mode"] != "key-bound" || claims["session_public_key"] != clientKey(t) {
		t.Errorf("init claims = %v", claims)
	}
	var init struct {
		SessionID     string
		Metadata, Env map[string]string
	}
	if err := json.Unmarshal([]byte(w.agents.bodies[sandboxID]), &init); err != nil || init.SessionID != out.SessionID ||
		init.Metadata["purpose"] != "test" || init.Env["A"] != "b" {
		t.Errorf("init body = %s, %v", w.agents.bodies[sandboxID], err)
	}
	spec, _ := w.host.Spec(sandboxID)
	if spec.Image != "python" || spec.Workspace != "/workspace" || spec.Resources.MemoryBytes != 1<<30 || spec.BootstrapKey == "" ||
		!maps.Equal(spec.Env, map[string]string{"A": "b"}) {
		t.Errorf("spec = %+v", spec)
	}
}

func TestCreateManaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	out := n.create()
	if out.Session.Auth != api.AuthManaged {
		t.Errorf("auth = %q", out.Session.Auth)
	}
	claims := w.agents.claims[out.SandboxID]
	if claims["mode"] != "managed" {
		t.Errorf("init claims = %v", claims)
	}
	if rec := w.record(out.SessionID); rec.PublicKey != "" || rec.Owner != "alice" {
		t.Errorf("record = %+v", rec)
	}
}

func TestCreateWithoutAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].AuthMode = template.AuthNone
	n := w.start()
	got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default","publicKey":"`+clientKey(t)+`"}`)
	if got.status != http.StatusBadRequest {
		t.Errorf("create with a key = %d %s, want 400", got.status, got.body)
	}
	out := n.create()
	if spec, _ := w.host.Spec(out.SandboxID); out.Session.Auth != api.AuthNone || spec.BootstrapKey != "" {
		t.Errorf("auth = %q, bootstrap key %q", out.Session.Auth, spec.BootstrapKey)
	}
	if len(w.agents.claims) != 0 {
		t.Error("the sandbox was initialised")
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start()
	for ttl, want := range map[string]time.Duration{
		`0`: 8 * time.Hour, `1`: time.Second, `3600`: time.Hour, `28800`: 8 * time.Hour, `315360000`: 8 * time.Hour, `null`: 8 * time.Hour,
	} {
		got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default","ttl":`+ttl+`}`)
		var out api.CreateResponse
		got.decode(t, &out)
		if life := out.Session.ExpiresAt.Sub(out.Session.CreatedAt); life != want {
			t.Errorf("ttl %s: life = %v, want %v", ttl, life, want)
		}
	}
}

func TestMinIsolation(t *testing.T) {
	t.Parallel()
	for min, status := range map[string]int{"": 200, "none": 200, "runc": 200, "gvisor": 200, "kata": 422, "vault": 422} {
		w := newWorld(t)
		w.templates[0].MinIsolation = min
		got := w.start().do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default"}`)
		if got.status != status {
			t.Errorf("minIsolation %q: %d %s, want %d", min, got.status, got.body, status)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	for _, path := range []string{createPath + "/sessions/", "/v1/agent-runtime/sessions/"} {
		id := n.create().SessionID
		if got := n.do(t.Context(), "bob", "DELETE", path+id, ""); got.status != 404 || len(w.host.IDs()) != 1 {
			t.Errorf("delete by somebody else = %d, want 404 and the sandbox alive", got.status)
		}
		got := n.do(t.Context(), "alice", "DELETE", path+id, "")
		if got.status != 200 || got.body != `{"message":"Sandbox deleted successfully"}` {
			t.Errorf("delete = %d %s", got.status, got.body)
		}
		if ids := w.host.IDs(); len(ids) != 0 {
			t.Errorf("sandboxes after delete: %q", ids)
		}
		w.eventuallyEnded(id, api.FateDeleted)
		if got := n.do(t.Context(), "alice", "DELETE", path+id, ""); got.status != 404 {
			t.Errorf("second delete = %d %s, want 404", got.status, got.body)
		}
	}
	id := n.create().SessionID
	if got := n.do(t.Context(), "root", "DELETE", createPath+"/sessions/"+id, ""); got.status != 200 {
		t.Errorf("delete by an administrator = %d", got.status)
	}
	if rec := w.eventuallyEnded(id, api.FateDeleted); rec.Reason != "deleted by an administrator" {
		t.Errorf("reason %q", rec.Reason)
	}
}

func TestNativeSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	var ids []string
	for range 5 {
		ids = append(ids, n.create().SessionID)
	}
	n.do(t.Context(), "bob", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default"}`)

	got := n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+ids[0], "")
	var s api.Session
	got.decode(t, &s)
	if got.status != 200 || s.State != api.StateEnded || s.Fate != api.FateDeleted || s.EndedAt == nil {
		t.Errorf("delete = %d %+v", got.status, s)
	}
	var e api.Error
	got = n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+ids[0], "")
	got.decode(t, &e)
	if got.status != 410 || e.Code != api.CodeSessionEnded || e.Fate != "deleted" || e.EndedAt == nil {
		t.Errorf("second delete = %d %s", got.status, got.body)
	}
	got = n.do(t.Context(), "alice", "GET", "/v1/sessions/"+ids[0], "")
	got.decode(t, &s)
	if got.status != 200 || s.Fate != api.FateDeleted {
		t.Errorf("get of an ended session = %d %s", got.status, got.body)
	}
	if got := n.do(t.Context(), "bob", "GET", "/v1/sessions/"+ids[1], ""); got.status != 404 {
		t.Errorf("get by somebody else = %d, want 404", got.status)
	}

	for query, want := range map[string][]string{
		"":                             {ids[4], ids[3], ids[2], ids[1], ids[0]},
		"?state=running":               {ids[4], ids[3], ids[2], ids[1]},
		"?state=ended":                 {ids[0]},
		"?state=running&state=pending": {ids[4], ids[3], ids[2], ids[1]},
		"?limit=2&state=running":       {ids[4], ids[3], ids[2], ids[1]},
	} {
		if got := n.listAll(query); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("list %q = %q, want %q", query, got, want)
		}
	}
	var all api.SessionList
	n.do(t.Context(), "root", "GET", "/v1/sessions?all=true", "").decode(t, &all)
	if len(all.Sessions) != 6 {
		t.Errorf("an administrator sees %d sessions, want 6", len(all.Sessions))
	}
}

// listAll reads every page as alice.
func (n *node) listAll(query string) (ids []string) {
	n.t.Helper()
	sep, token := "?", ""
	if query != "" {
		sep = "&"
	}
	for {
		path := "/v1/sessions" + query
		if token != "" {
			path += sep + "pageToken=" + token
		}
		var page api.SessionList
		n.do(n.t.Context(), "alice", "GET", path, "").decode(n.t, &page)
		for _, s := range page.Sessions {
			ids = append(ids, s.SessionID)
		}
		if token = page.NextPageToken; token == "" {
			return ids
		}
	}
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*manager.Config){
		"count":  func(c *manager.Config) { c.MaxSandboxes = 2 },
		"memory": func(c *manager.Config) { c.MemoryBudget = 5 << 29 },
		"owner":  func(c *manager.Config) { c.MaxPerOwner = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config = set
			n := w.start()
			first := n.create().SessionID
			n.create()
			got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default"}`)
			var e api.Error
			got.decode(t, &e)
			if got.status != 429 || e.Code != api.CodeServerOverloaded || got.header.Get("Retry-After") != "1" ||
				e.Text != "server overloaded, please try again later" {
				t.Errorf("third create = %d %s", got.status, got.body)
			}
			// What an earlier process made counts after a restart.
			n.stop()
			n = w.start()
			if got := n.do(t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default"}`); got.status != 429 {
				t.Errorf("create after a restart = %d", got.status)
			}
			n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+first, "")
			n.create()
		})
	}
}
