package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

// tour drives a running control plane and holds every request and answer to the
// description.
type tour struct {
	t       *testing.T
	handler http.Handler
	check   validator.Validator
	doc     libopenapi.Document
	seen    map[string]bool // "METHOD path" of the description
	token   string
}

func newTour(t *testing.T) *tour {
	t.Helper()
	doc, err := libopenapi.NewDocument([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	check, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if valid, problems := check.ValidateDocument(); !valid {
		for _, p := range problems {
			t.Errorf("description: %s: %s", p.Message, p.Reason)
		}
	}
	tr := &tour{t: t, check: check, doc: doc, seen: map[string]bool{}, token: "ac_" + strings.Repeat("x", 43)}
	tr.handler = servePlanes(t, tr.token, func(sandbox.Spec) map[uint16]http.Handler {
		return map[uint16]http.Handler{sandbox.AgentPort: http.HandlerFunc(agree)}
	})
	return tr
}

// agree is an agent that takes all that a session is given, except a file "bad".
func agree(w http.ResponseWriter, r *http.Request) {
	var in struct {
		SessionEnv map[string]string
		Files      []struct{ Path string }
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	for i, f := range in.Files {
		if f.Path == "bad" {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprintf(w, `{"error":"bad","reason":"PATH_IS_DIRECTORY","file":%d}`, i)
			return
		}
	}
	_, _ = fmt.Fprintf(w, `{"variables":%d,"files":%d}`, len(in.SessionEnv), len(in.Files))
}

// planeKey signs for Workload Manager and Router; making one takes long.
var planeKey = sync.OnceValue(authtest.NewKey)

// servePlanes is the control plane and the Router as one handler, over sandboxes
// in memory in which agent answers.
func servePlanes(t *testing.T, token string, agent func(sandbox.Spec) map[uint16]http.Handler) http.Handler {
	t.Helper()
	key := planeKey()
	logger := slog.New(slog.DiscardHandler)
	driver := fake.New(fake.Config{Host: fake.NewHost(agent), Hooks: fake.Hooks{
		Prepare: func(_ context.Context, spec sandbox.Spec) error {
			if spec.Image == "odd" {
				return sandbox.ErrUnsupported
			}
			return nil
		},
	}})
	store := sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))
	for _, open := range []func(context.Context) error{driver.Open, store.Open} {
		if err := open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tokens := auth.NewTokens(store, nil)
	callers := auth.Chain{auth.NewLocal(token), tokens}
	var rt *router.Router
	tmpl := template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python", Image: "python", Workspace: "/workspace",
		AuthMode: template.AuthPicoD, IdleTimeout: time.Hour, MaxDuration: time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 8080}},
	}
	runtime, demanding, odd := tmpl, tmpl, tmpl
	runtime.Kind, runtime.Name = api.KindAgentRuntime, "agent"
	demanding.Name, demanding.MinIsolation = "demanding", "kata"
	odd.Name, odd.Image = "odd", "odd"
	m := manager.New(manager.Config{
		Store: store, Driver: driver, Templates: template.NewSet(tmpl, runtime, demanding, odd),
		Authenticator: callers, Tokens: tokens, BootstrapKey: key, RouterKey: &key.PublicKey, Logger: logger,
		SessionChanged: func(s session.Session) { rt.SessionChanged(s) }, MaxSandboxes: 4,
		TokenRevoked: func(name string) { rt.Revoked(name) },
		HoldRequests: func(id string, idle bool) (func(), bool) { return rt.Hold(id, idle) },
	})
	rt = router.New(router.Config{
		Sessions: store, Dialer: router.ByID{Sandboxes: driver}, Creator: m, Waker: m, Authenticator: callers, SigningKey: key, Logger: logger,
	})
	if err := m.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rt.Close()
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = driver.Close()
		_ = store.Close()
	})
	return httpserve.Middleware{Logger: logger}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if router.Owns(r.URL.Path) {
			rt.ServeHTTP(w, r)
			return
		}
		m.ServeHTTP(w, r)
	}))
}

// step sends a request and checks the answer. Requests that are wrong on
// purpose, those answered 4xx, need not match the description.
func (tr *tour) step(method, path, body string, want int, header ...string) []byte {
	tr.t.Helper()
	request := func() *http.Request {
		r := httptest.NewRequest(method, "http://localhost:8080"+path, bytes.NewBufferString(body))
		r.Header.Set("Authorization", "Bearer "+tr.token)
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return r
	}
	rec := httptest.NewRecorder()
	tr.handler.ServeHTTP(rec, request())
	if rec.Code != want {
		tr.t.Errorf("%s %s = %d %s, want %d", method, path, rec.Code, rec.Body, want)
	}
	answer := rec.Body.Bytes()
	if want < 400 {
		if valid, problems := tr.check.ValidateHttpRequest(request()); !valid {
			for _, p := range problems {
				tr.t.Errorf("%s %s: request: %s: %s", method, path, p.Message, p.Reason)
			}
		}
	}
	for _, resp := range documents(rec) {
		_, problems := tr.check.ValidateHttpResponse(request(), resp)
		for _, p := range problems {
			tr.t.Errorf("%s %s: answer %d %s: %s: %s", method, path, rec.Code, answer, p.Message, p.Reason)
			for _, e := range p.SchemaValidationErrors {
				tr.t.Errorf("  %s", e.Reason)
			}
		}
	}
	tr.note(method, path)
	return answer
}

// note remembers which described operation a request was.
func (tr *tour) note(method, path string) {
	path, _, _ = strings.Cut(path, "?")
	model, err := tr.doc.BuildV3Model()
	if err != nil {
		tr.t.Fatal(err)
	}
	for described := range model.Model.Paths.PathItems.KeysFromOldest() {
		if matches(described, path) {
			tr.seen[method+" "+described] = true
			return
		}
	}
	tr.t.Errorf("%s %s is not described", method, path)
}

func matches(described, path string) bool {
	a, b := strings.Split(described, "/"), strings.Split(path, "/")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !strings.HasPrefix(a[i], "{") {
			return false
		}
	}
	return true
}

func (tr *tour) create(path, body string, header ...string) string {
	tr.t.Helper()
	var out api.CreateResponse
	if err := json.Unmarshal(tr.step("POST", path, body, 200, header...), &out); err != nil {
		tr.t.Fatal(err)
	}
	return out.SessionID
}

// TestServerKeepsToDescription visits every operation that is described, and
// the answers that can be provoked.
func TestServerKeepsToDescription(t *testing.T) {
	t.Parallel()
	tr := newTour(t)
	const (
		unknown = "5b1f1c2e-1111-4222-8333-444444444444"
		body    = `{"name":"python","namespace":"default"}`
	)
	for _, path := range []string{"/health", "/health/live", "/health/ready", "/v1/openapi.yaml"} {
		tr.step("GET", path, "", 200)
	}
	tr.step("GET", "/v1/sessions", "", 200) // an empty list

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := auth.PublicKeyPEM(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	full, _ := json.Marshal(api.CreateRequest{
		Name: "python", Namespace: "default", TTL: 60, Metadata: map[string]string{"a": "b"},
		PublicKey: base64.RawStdEncoding.EncodeToString([]byte(pem)),
		Env:       map[string]string{"GREETING": "hello"},
		Files:     []api.File{{Path: "data.csv", Content: []byte("a,b"), Mode: "0600"}, {Path: "empty", Content: []byte{}}},
	})
	a := tr.create("/v1/code-interpreter", string(full), "Idempotency-Key", "k")
	b := tr.create("/v1/code-interpreter", body)
	c := tr.create("/v1/agent-runtime", `{"name":"agent","namespace":"default","unknown":true}`)
	d := tr.create("/v1/code-interpreter", body)
	if again := tr.create("/v1/code-interpreter", string(full), "Idempotency-Key", "k"); again != a {
		t.Errorf("the idempotency key gave %s, then %s", a, again)
	}
	tr.step("POST", "/v1/code-interpreter", body, 429)
	tr.step("POST", "/v1/code-interpreter", body, 409, "Idempotency-Key", "k")
	tr.step("POST", "/v1/code-interpreter", `{"name":"pyton","namespace":"default"}`, 404)
	tr.step("POST", "/v1/agent-runtime", body, 404)
	tr.step("POST", "/v1/code-interpreter", `{"name":"demanding","namespace":"default"}`, 422)
	tr.step("POST", "/v1/code-interpreter", `{}`, 400)
	tr.step("POST", "/v1/code-interpreter", `{"name":"python","namespace":"default","env":{"A B":""}}`, 400)
	tr.step("POST", "/v1/code-interpreter", `{"name":"`+strings.Repeat("x", 4<<20)+`"}`, 413)
	tr.step("POST", "/v1/code-interpreter", body, 401, "Authorization", "Bearer nonsense")
	tr.step("POST", "/v1/code-interpreter", body, 403, "Origin", "https://evil.example")

	tr.step("GET", "/v1/sessions/"+a, "", 200)
	tr.step("GET", "/v1/sessions/"+unknown, "", 404)
	tr.step("GET", "/v1/sessions/"+a, "", 401, "Authorization", "")
	tr.step("DELETE", "/v1/sessions/"+a, "", 200)
	tr.step("DELETE", "/v1/sessions/"+a, "", 410)
	tr.step("DELETE", "/v1/sessions/"+unknown, "", 404)
	tr.step("GET", "/v1/sessions/"+a, "", 200)
	tr.step("POST", "/v1/code-interpreter", string(full), 410, "Idempotency-Key", "k")
	tr.step("DELETE", "/v1/code-interpreter/sessions/"+b, "", 200)
	tr.step("DELETE", "/v1/code-interpreter/sessions/"+b, "", 404)
	tr.step("DELETE", "/v1/agent-runtime/sessions/"+c, "", 200)
	tr.step("DELETE", "/v1/agent-runtime/sessions/"+c, "", 404)
	tr.step("DELETE", "/v1/sessions/"+d, "", 200)
	tr.step("POST", "/v1/code-interpreter", `{"name":"python","namespace":"default","env":null,"files":[{"path":"bad","content":""}]}`, 422)

	var page api.SessionList
	if err := json.Unmarshal(tr.step("GET", "/v1/sessions?limit=2&state=ended&state=running", "", 200), &page); err != nil {
		t.Fatal(err)
	}
	tr.step("GET", "/v1/sessions?limit=2&pageToken="+page.NextPageToken, "", 200)
	tr.step("GET", "/v1/sessions?limit=0", "", 400)
	tr.step("GET", "/v1/sessions?all=true", "", 200)

	tr.copies(unknown)
	tr.tokens()
	tr.step("POST", "/v1/templates/default/python/prepare", "", 200)
	tr.step("POST", "/v1/templates/default/odd/prepare", "", 501)
	tr.step("POST", "/v1/templates/default/pyton/prepare", "", 404)
	tr.step("POST", "/v1/templates/default/python/prepare", "", 401, "Authorization", "")

	tr.everyOperation()
}

func (tr *tour) everyOperation() {
	tr.t.Helper()
	model, err := tr.doc.BuildV3Model()
	if err != nil {
		tr.t.Fatal(err)
	}
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().KeysFromOldest() {
			if op := strings.ToUpper(method) + " " + path; !tr.seen[op] {
				tr.t.Errorf("%s is described, but the tour does not visit it", op)
			}
		}
	}
}

// TestCodesAreDescribed: the codes in errors.go and those in the description
// are the same.
func TestCodesAreDescribed(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(api.OpenAPI(), "Codes are added, never changed.\n          enum: [")
	list, _, _ = strings.Cut(list, "]")
	described := map[string]bool{}
	for _, code := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \n", r) }) {
		described[code] = true
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		code, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if !described[code] {
			t.Errorf("code %s is not described", code)
		}
		delete(described, code)
		return true
	})
	for code := range described {
		t.Errorf("code %s is described, but does not exist", code)
	}
}
