package remote_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/remote"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

func TestMain(m *testing.M) { guardtest.Main(m) }

const guard = time.Minute

// world is a real Workload Manager behind HTTP.
type world struct {
	host  *fake.Host
	store *sqlite.Store
	api   http.Handler
}

func newWorld(t *testing.T, hooks fake.Hooks, set func(*manager.Config)) *world {
	t.Helper()
	w := &world{host: fake.NewHost(nil), store: sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))}
	driver := fake.New(fake.Config{Host: w.host, Hooks: hooks})
	for _, open := range []func(context.Context) error{w.store.Open, driver.Open} {
		if err := open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	picod := template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python", Image: "python", Workspace: "/workspace",
		AuthMode: template.AuthPicoD, Resources: sandbox.Resources{MemoryBytes: 1 << 30}, IdleTimeout: time.Hour, MaxDuration: time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: sandbox.AgentPort}},
	}
	agent := picod
	agent.Kind, agent.Name, agent.AuthMode = api.KindAgentRuntime, "agent", template.AuthNone
	key := authtest.NewKey()
	cfg := manager.Config{
		Store: w.store, Driver: driver, Templates: template.NewSet(picod, agent), BootstrapKey: key, RouterKey: &key.PublicKey,
		Authenticator: authtest.Tokens{"alice": authtest.User("alice"), "bob": authtest.User("bob"), "reader": {Name: "reader", Scopes: auth.ScopeUse}},
		Logger:        slog.New(slog.DiscardHandler),
	}
	if set != nil {
		set(&cfg)
	}
	m := manager.New(cfg)
	if err := m.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.api = httpserve.Middleware{Logger: cfg.Logger}.Wrap(m)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), guard)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
		for _, id := range w.host.IDs() { // those that sleep
			w.host.Lose(id)
		}
		_ = driver.Close()
		_ = w.store.Close()
	})
	return w
}

// connect starts a server, and returns a Manager that asks it.
func connect(t *testing.T, h http.Handler, timeout time.Duration) *remote.Manager {
	t.Helper()
	srv := httptest.NewServer(h)
	m, err := remote.New(remote.Config{URL: srv.URL + "/", Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		srv.Close()
	})
	return m
}

// as is a context of a request of somebody's to the Router.
func as(t *testing.T, token string) context.Context {
	if token == "" {
		return t.Context()
	}
	return auth.WithAuthorization(t.Context(), "Bearer "+token)
}

// TestCreate: the session is the caller's, of the kind that was asked for.
func TestCreate(t *testing.T) {
	w := newWorld(t, fake.Hooks{}, nil)
	m := connect(t, w.api, 0)
	for kind, name := range map[string]string{api.KindCodeInterpreter: "python", api.KindAgentRuntime: "agent"} {
		got, err := m.CreateManaged(as(t, "alice"), authtest.User("alice"), kind, "default", name)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := w.store.Get(t.Context(), got.ID)
		if err != nil || rec.Owner != "alice" || rec.Kind != kind || rec.Name != name || rec.State != api.StateRunning {
			t.Errorf("session %+v, %v", rec, err)
		}
		if got.Owner != rec.Owner || got.Auth != rec.Auth || got.SandboxID != rec.SandboxID || len(got.EntryPoints) != 1 || got.EntryPoints[0] != rec.EntryPoints[0] {
			t.Errorf("told of %+v, want %+v", got, rec)
		}
	}
}

// TestRefused: what the Workload Manager says is the answer.
func TestRefused(t *testing.T) {
	w := newWorld(t, fake.Hooks{}, func(cfg *manager.Config) { cfg.MaxPerOwner = 1 })
	m := connect(t, w.api, 0)
	if _, err := m.CreateManaged(as(t, "alice"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		token, template string
		status          int
		code            api.Code
		retry           int
	}{
		"no header":       {"", "python", 401, api.CodeUnauthorized, 0},
		"wrong token":     {"mallory", "python", 401, api.CodeUnauthorized, 0},
		"lacks the scope": {"reader", "python", 403, api.CodeForbidden, 0},
		"no template":     {"bob", "none", 404, api.CodeTemplateNotFound, 0},
		"full":            {"alice", "python", 429, api.CodeServerOverloaded, 1},
	} {
		_, err := m.CreateManaged(as(t, test.token), authtest.User(test.token), api.KindCodeInterpreter, "default", test.template)
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Status != test.status || e.Code != test.code || e.RetryAfter != test.retry || e.Text == "" {
			t.Errorf("%s: %v (%+v)", name, err, e)
		}
	}
	// A Workload Manager that knows the caller by another name is not asked in vain.
	if _, err := m.CreateManaged(as(t, "bob"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python"); err == nil {
		t.Error("session of another owner: no error")
	}
}

// TestWake: a session is resumed by its owner's token, and by nothing else.
func TestWake(t *testing.T) {
	w := newWorld(t, fake.Hooks{}, nil)
	m := connect(t, w.api, 0)
	rec, err := m.CreateManaged(as(t, "alice"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python")
	if err != nil {
		t.Fatal(err)
	}
	pause := httptest.NewRequestWithContext(t.Context(), "POST", "http://localhost/v1/sessions/"+rec.ID+"/pause", http.NoBody)
	pause.Header.Set("Authorization", "Bearer alice")
	answer := httptest.NewRecorder()
	if w.api.ServeHTTP(answer, pause); answer.Code != http.StatusOK {
		t.Fatalf("pause = %d %s", answer.Code, answer.Body)
	}
	for _, test := range []struct {
		token  string
		status int
	}{{"", 409}, {"bob", 404}, {"alice", 0}} {
		err := m.Wake(as(t, test.token), rec.ID)
		if e, _ := errors.AsType[*api.Error](err); err != nil && (e == nil || e.Status != test.status) || err == nil && test.status != 0 {
			t.Errorf("token %q: %v", test.token, err)
		}
		if now, err := w.store.Get(t.Context(), rec.ID); err != nil || (now.State == api.StateRunning) != (test.status == 0) {
			t.Errorf("token %q: session is %q, %v", test.token, now.State, err)
		}
	}
}

// TestCancelled: when the caller of the Router goes away, nothing is left.
func TestCancelled(t *testing.T) {
	entered := make(chan struct{})
	w := newWorld(t, fake.Hooks{Created: func(ctx context.Context, _ sandbox.Spec) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}, nil)
	m := connect(t, w.api, 0)
	ctx, cancel := context.WithCancel(as(t, "alice"))
	go func() { <-entered; cancel() }()
	if _, err := m.CreateManaged(ctx, authtest.User("alice"), api.KindCodeInterpreter, "default", "python"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for deadline := time.Now().Add(guard); len(w.host.IDs()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the sandbox was not removed")
		}
	}
}

// TestStrangeAnswers: what is not of a Workload Manager tells the caller nothing, and is
// bounded.
func TestStrangeAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		status int // 0: an internal error
	}{
		"page of a proxy": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>secret", http.StatusBadGateway) }, 503},
		"page":            {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>secret", http.StatusForbidden) }, 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusTemporaryRedirect)
		}, 0},
		"redirect in our words": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusFound)
			_, _ = io.WriteString(w, `{"error":"a","code":"B"}`)
		}, 0},
		"no id":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) }, 0},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `secret`) }, 0},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("secret ", 1<<20))
		}, 503},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(200)
		}, 503},
		"too slow": {func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, 504},
	} {
		timeout := guard
		if name == "too slow" {
			timeout = 50 * time.Millisecond
		}
		var asked atomic.Int32
		m := connect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			test.answer(w, r)
		}), timeout)
		_, err := m.CreateManaged(as(t, "alice"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python")
		e, _ := errors.AsType[*api.Error](err)
		if err == nil || test.status == 0 && e != nil || test.status != 0 && (e == nil || e.Status != test.status) {
			t.Errorf("%s: %v", name, err)
		}
		if told := httpserve.AsError(err); strings.Contains(told.Text+told.Hint, "secret") {
			t.Errorf("%s: the caller is told %q", name, told.Text)
		}
		if asked.Load() != 1 {
			t.Errorf("%s: asked %d times", name, asked.Load())
		}
	}
}

// TestRetry: what could not be sent is sent once more, and what may have been sent is
// not.
func TestRetry(t *testing.T) {
	w := newWorld(t, fake.Hooks{}, nil)
	for refusals, good := range map[int32]bool{0: true, 1: true, 2: false} {
		srv := httptest.NewServer(w.api)
		var dials atomic.Int32
		transport := remote.NewTransport(nil)
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) <= refusals {
				return nil, errors.New("refused")
			}
			return dial(ctx, network, address)
		}
		m, err := remote.New(remote.Config{URL: srv.URL, Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.CreateManaged(as(t, "alice"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python")
		if e, _ := errors.AsType[*api.Error](err); good != (err == nil) || err != nil && (e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0) {
			t.Errorf("after %d refusals: %v", refusals, err)
		}
		m.Close()
		srv.Close()
	}
	var asked atomic.Int32
	broken := connect(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}), 0)
	_, err := broken.CreateManaged(as(t, "alice"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python")
	if e, _ := errors.AsType[*api.Error](err); e == nil || e.Status != http.StatusServiceUnavailable || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// TestTLS: the Workload Manager shows a certificate that is trusted, and is shown one.
func TestTLS(t *testing.T) {
	w := newWorld(t, fake.Hooks{}, nil)
	srv := httptest.NewUnstartedServer(w.api)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	mine := srv.TLS.Certificates // any will do
	for name, test := range map[string]struct {
		settings *tls.Config
		good     bool
	}{
		"both":           {&tls.Config{RootCAs: roots, Certificates: mine, MinVersion: tls.VersionTLS12}, true},
		"shows nothing":  {&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, false},
		"trusts nothing": {&tls.Config{RootCAs: x509.NewCertPool(), Certificates: mine, MinVersion: tls.VersionTLS12}, false},
	} {
		m, err := remote.New(remote.Config{URL: srv.URL, Transport: remote.NewTransport(test.settings)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.CreateManaged(as(t, "alice"), authtest.User("alice"), api.KindCodeInterpreter, "default", "python")
		if (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
		m.Close()
	}
}

func TestURL(t *testing.T) {
	for _, url := range []string{"", "manager:8080", "ftp://manager", "http://", "http://a:b@manager", "http://manager?x=1", "http://manager#x"} {
		if _, err := remote.New(remote.Config{URL: url}); err == nil {
			t.Errorf("New(%q): no error", url)
		}
	}
}

// TestRequestID: one request has one id in the logs of both, and is part of one trace.
func TestRequestID(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	var got, traced string
	m := connect(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, traced = r.Header.Get(api.HeaderRequestID), r.Header.Get("Traceparent")
	}), 0)
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost/", http.NoBody)
	r.Header.Set(api.HeaderRequestID, "r-1")
	r.Header.Set("Traceparent", parent)
	httpserve.Middleware{Logger: slog.New(slog.DiscardHandler)}.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = m.CreateManaged(r.Context(), authtest.User("alice"), api.KindCodeInterpreter, "default", "python")
	})).ServeHTTP(httptest.NewRecorder(), r)
	if got != "r-1" {
		t.Errorf("request id %q", got)
	}
	if traced != parent {
		t.Errorf("the Workload Manager is told of %q", traced)
	}
}
