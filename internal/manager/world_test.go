package manager_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

func TestMain(m *testing.M) { guardtest.Main(m) }

// guard keeps a broken test from hanging; no test waits for it.
const guard = time.Minute

// keys are made once: RSA keys are slow to make.
type keySet struct{ bootstrap, router, client *rsa.PrivateKey }

var keys = sync.OnceValue(func() keySet {
	return keySet{bootstrap: authtest.NewKey(), router: authtest.NewKey(), client: authtest.NewKey()}
})

// clientKey is the publicKey of a create request.
func clientKey(t *testing.T) string {
	t.Helper()
	return base64.RawStdEncoding.EncodeToString([]byte(publicPEM(t, keys().client)))
}

func publicPEM(t *testing.T, key *rsa.PrivateKey) string {
	t.Helper()
	text, err := auth.PublicKeyPEM(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// agents remembers how the agent in each sandbox was initialised.
type agents struct {
	mu     sync.Mutex
	claims map[string]jwt.MapClaims // by sandbox id
	bodies map[string]string
	status int    // answers /init with it when not zero
	answer string // and with this body, if there is one
	lax    bool   // knows nothing of strict sessions
}

func (a *agents) serve(spec sandbox.Spec) map[uint16]http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ok"}`) })
	mux.HandleFunc("POST /init", func(w http.ResponseWriter, r *http.Request) { a.init(spec, w, r) })
	return map[uint16]http.Handler{sandbox.AgentPort: mux}
}

func (a *agents) init(spec sandbox.Spec, w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key, err := auth.ParsePublicKeyPEM(spec.BootstrapKey)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	claims := jwt.MapClaims{}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status != 0 {
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.answer)
		return
	}
	var in struct {
		SessionEnv map[string]string
		Files      []any
		Strict     bool
	}
	_ = json.Unmarshal(body, &in)
	a.claims[spec.ID], a.bodies[spec.ID] = claims, string(body)
	_, _ = fmt.Fprintf(w, `{"message":"ok","variables":%d,"files":%d,"strict":%v}`, len(in.SessionEnv), len(in.Files), in.Strict && !a.lax)
}

// worldStore is the store of a world.
type worldStore interface {
	manager.Store
	auth.TokenStore
	Open(ctx context.Context) error
	Close() error
}

// world is a machine with a store, on which managers come and go.
type world struct {
	t      *testing.T
	host   *fake.Host
	path   string // of the store
	store  worldStore
	agents *agents

	// What start uses; tests change it before.
	hooks     fake.Hooks
	wrapStore func(manager.Store) manager.Store
	wrap      func(sandbox.Full) sandbox.Full
	config    func(*manager.Config)
	templates []template.Template
}

func newWorld(t *testing.T) *world {
	path := filepath.Join(t.TempDir(), "sessions.db")
	w := newWorldOn(t, sqlite.New(path))
	w.path = path
	return w
}

func newWorldOn(t *testing.T, store worldStore) *world {
	a := &agents{claims: map[string]jwt.MapClaims{}, bodies: map[string]string{}}
	w := &world{t: t, agents: a, host: fake.NewHost(a.serve), store: store}
	if err := w.store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, id := range w.host.IDs() {
			w.host.Lose(id)
		}
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.templates = []template.Template{python("simple-codeinterpreter")}
	return w
}

func python(name string) template.Template {
	return template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: name, Image: "python",
		Env: map[string]string{"A": "b"}, Workspace: "/workspace", AuthMode: template.AuthPicoD,
		Resources:   sandbox.Resources{CPUMillis: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30, Processes: 100},
		IdleTimeout: 15 * time.Minute, MaxDuration: 8 * time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 8080}},
	}
}

// node is one process: a manager with its driver.
type node struct {
	*manager.Manager
	t      *testing.T
	driver *fake.Driver
	http   http.Handler
	stop   func() // ends Run
}

// start starts a process on the machine. It is stopped, keeping its sessions,
// at the end of the test.
func (w *world) start() *node {
	w.t.Helper()
	d := fake.New(fake.Config{Host: w.host, Hooks: w.hooks, Isolation: "gvisor"})
	if err := d.Open(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	tokens := auth.NewTokens(w.store, nil)
	known := authtest.Tokens{"alice": authtest.User("alice"), "bob": authtest.User("bob"), "root": authtest.Admin("root")}
	cfg := manager.Config{
		Store: w.store, Driver: d, Templates: template.NewSet(w.templates...),
		Authenticator: auth.Chain{tokens, known}, Tokens: tokens,
		BootstrapKey: keys().bootstrap, RouterKey: &keys().router.PublicKey,
		Logger: slog.New(slog.DiscardHandler), PollInterval: 5 * time.Millisecond, KeepSessions: true,
		CreateTimeout: guard, InitTimeout: guard,
	}
	if w.wrapStore != nil {
		cfg.Store = w.wrapStore(w.store)
	}
	if w.wrap != nil {
		cfg.Driver = w.wrap(d)
	}
	if w.config != nil {
		w.config(&cfg)
	}
	m := manager.New(cfg)
	if err := m.Open(w.t.Context()); err != nil {
		w.t.Fatalf("Open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	n := &node{Manager: m, t: w.t, driver: d}
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	n.http = httpserve.Middleware{Logger: cfg.Logger}.Wrap(m)
	w.t.Cleanup(func() {
		n.stop()
		ctx, cancel := context.WithTimeout(context.Background(), guard)
		defer cancel()
		_ = m.Close(ctx)
		_ = d.Close()
	})
	return n
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
}

// do sends a request as a caller; who may be empty.
func (n *node) do(ctx context.Context, who, method, path, body string, header ...string) answer {
	r := httptest.NewRequestWithContext(ctx, method, "http://localhost:8080"+path, bytes.NewBufferString(body))
	r.Header.Set("X-Request-Id", "test-1")
	if who != "" {
		r.Header.Set("Authorization", "Bearer "+who)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	n.http.ServeHTTP(rec, r)
	return answer{rec.Code, rec.Header(), rec.Body.String()}
}

const createPath = "/v1/code-interpreter"

// create makes a managed session of alice.
func (n *node) create(header ...string) api.CreateResponse {
	n.t.Helper()
	a := n.do(n.t.Context(), "alice", "POST", createPath, `{"name":"simple-codeinterpreter","namespace":"default"}`, header...)
	if a.status != http.StatusOK {
		n.t.Fatalf("create = %d %s", a.status, a.body)
	}
	var out api.CreateResponse
	a.decode(n.t, &out)
	return out
}

func (w *world) record(id string) session.Session {
	w.t.Helper()
	rec, err := w.store.Get(context.Background(), id)
	if err != nil {
		w.t.Fatalf("Get %s: %v", id, err)
	}
	return rec
}

func (w *world) records() []session.Session {
	w.t.Helper()
	all, _, err := w.store.List(context.Background(), session.Query{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// eventually waits for something that goes on in the background.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), guard)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("never happened: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// eventuallyEnded waits for the end of a session and of its sandbox.
func (w *world) eventuallyEnded(id string, fate api.Fate) session.Session {
	w.t.Helper()
	w.eventually("session ended and sandbox gone", func() bool {
		_, there := w.host.Spec(manager.SandboxID(id))
		return !there && w.record(id).Ended()
	})
	rec := w.record(id)
	if rec.Fate != fate || rec.Reason == "" || rec.EndedAt.IsZero() {
		w.t.Errorf("ended with fate %q, reason %q, at %v; want fate %q", rec.Fate, rec.Reason, rec.EndedAt, fate)
	}
	return rec
}
