package router_test

import (
	"context"
	"crypto/rsa"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
)

func TestMain(m *testing.M) { guardtest.Main(m) }

const guard = time.Minute

type keySet struct{ router, client, stranger *rsa.PrivateKey }

var keys = sync.OnceValue(func() keySet {
	return keySet{router: authtest.NewKey(), client: authtest.NewKey(), stranger: authtest.NewKey()}
})

// sdkToken is what the Python SDK signs a request with.
func sdkToken(t testing.TB, key *rsa.PrivateKey) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": "sdk-client", "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// world is a Router before sandboxes in memory, on a listener of its own.
type world struct {
	t      testing.TB
	host   *fake.Host
	driver *fake.Driver
	store  *sqlite.Store
	router *router.Router
	url    string
	client *http.Client

	dials atomic.Int32
	// create answers CreateManaged.
	create func(owner auth.Principal, kind, namespace, name string) (session.Session, error)
}

func (w *world) CreateManaged(_ context.Context, owner auth.Principal, kind, namespace, name string) (session.Session, error) {
	return w.create(owner, kind, namespace, name)
}

// newWorld serves app on AgentPort of every sandbox; set changes the Router's
// settings, and may be nil.
func newWorld(t testing.TB, app http.HandlerFunc, set func(*world, *router.Config)) *world {
	t.Helper()
	w := &world{t: t}
	w.host = fake.NewHost(func(sandbox.Spec) map[uint16]http.Handler {
		return map[uint16]http.Handler{sandbox.AgentPort: app, 9000: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, "port 9000")
		})}
	})
	w.driver = fake.New(fake.Config{Host: w.host, Hooks: fake.Hooks{
		Dial: func(context.Context, string, uint16) error { w.dials.Add(1); return nil },
	}})
	if err := w.driver.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.store = sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))
	if err := w.store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := router.Config{
		Sessions: w.store, Dialer: router.ByID{Sandboxes: w.driver}, Creator: w, SigningKey: keys().router,
		Authenticator: authtest.Tokens{"alice": authtest.User("alice"), "bob": authtest.User("bob"), "root": authtest.Admin("root")},
		Logger:        slog.New(slog.DiscardHandler), ExitGrace: time.Millisecond,
	}
	if set != nil {
		set(w, &cfg)
	}
	w.router = router.New(cfg)
	srv := httptest.NewServer(httpserve.Middleware{Logger: cfg.Logger}.Wrap(w.router))
	w.url = srv.URL
	transport := &http.Transport{DisableCompression: true}
	w.client = &http.Client{Transport: transport, Timeout: guard,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		w.router.Close()
		srv.CloseClientConnections()
		srv.Close()
		for _, id := range w.host.IDs() {
			w.host.Lose(id)
		}
		_ = w.driver.Close()
		_ = w.store.Close()
	})
	return w
}

// add makes a running, managed session of alice with its sandbox; change edits
// its record before it is stored.
func (w *world) add(change func(*session.Session)) session.Session {
	w.t.Helper()
	id := uuid.NewString()
	now := time.Now().UTC()
	rec := session.Session{
		ID: id, Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python",
		State: api.StateRunning, Owner: "alice", Auth: api.AuthManaged, SandboxID: "s-" + id,
		EntryPoints: []api.EntryPoint{{Path: "/", Protocol: "HTTP", Endpoint: "s-" + id + ":8080"}},
		IdleTimeout: time.Hour, CreatedAt: now, LastActivity: now, ExpiresAt: now.Add(time.Hour),
	}
	if change != nil {
		change(&rec)
	}
	if _, err := w.driver.Create(w.t.Context(), sandbox.Spec{ID: rec.SandboxID, Image: "python"}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Create(w.t.Context(), rec); err != nil {
		w.t.Fatal(err)
	}
	return rec
}

// keyBound makes a session one of the client's key.
func keyBound(t testing.TB) func(*session.Session) {
	text, err := auth.PublicKeyPEM(&keys().client.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return func(s *session.Session) { s.Auth, s.PublicKey = api.AuthClientKey, text }
}

// end ends a session as the Workload Manager does.
func (w *world) end(rec session.Session, fate api.Fate) {
	w.t.Helper()
	out, err := w.store.Update(w.t.Context(), rec.ID, func(s *session.Session) error {
		s.State, s.Fate, s.Reason, s.EndedAt = api.StateEnded, fate, "because", time.Now().UTC()
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.router.SessionChanged(out)
	if err := w.driver.Delete(w.t.Context(), rec.SandboxID); err != nil {
		w.t.Fatal(err)
	}
}

const base = "/v1/namespaces/default/code-interpreters/python/invocations"

type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; header is pairs, and an Authorization without a space
// becomes a bearer token.
func (w *world) do(method, path, body string, header ...string) answer {
	w.t.Helper()
	resp, err := w.send(w.t.Context(), method, path, strings.NewReader(body), header...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (w *world) send(ctx context.Context, method, path string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Request-Id", "test-1")
	for i := 0; i+1 < len(header); i += 2 {
		value := header[i+1]
		if header[i] == "Authorization" && !strings.Contains(value, " ") {
			value = "Bearer " + value
		}
		req.Header.Set(header[i], value)
	}
	return w.client.Do(req)
}

func (w *world) lastActivity(id string) time.Time {
	w.t.Helper()
	rec, err := w.store.Get(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return rec.LastActivity
}

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

// refuser fails every dial.
type refuser struct{ err error }

func (r refuser) Dial(context.Context, session.Session, uint16) (net.Conn, error) { return nil, r.err }
