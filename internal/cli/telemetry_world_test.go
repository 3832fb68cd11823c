package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/logtest"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

// What must be in no metric and no span.
const (
	owner   = "owner-of-all"
	bearer  = "token-of-the-owner"
	content = "content-of-a-file"
	file    = "name-of-a-file"
)

// told is both planes with their telemetry, over sandboxes in memory.
type told struct {
	t         *testing.T
	url       string
	telemetry *telemetry
	log       *logtest.Buffer
	stop      func()

	mu     sync.Mutex
	inside []string // what sandboxes were told of the traces of files
}

// agents notes the traceparent of requests for files.
func (p *told) agents(spec sandbox.Spec) map[uint16]http.Handler {
	agent := fake.NewAgent(spec)
	return map[uint16]http.Handler{sandbox.AgentPort: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/files" {
			p.mu.Lock()
			p.inside = append(p.inside, r.Header.Get("Traceparent"))
			p.mu.Unlock()
		}
		agent.ServeHTTP(w, r)
	})}
}

func tell(t *testing.T, change func(*config.Config, *manager.Config, *router.Config)) *told {
	p := &told{t: t, log: &logtest.Buffer{}}
	store := sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))
	driver := fake.New(fake.Config{Host: fake.NewHost(p.agents), Isolation: "gvisor"})
	for _, open := range []func(context.Context) error{store.Open, driver.Open} {
		if err := open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	key, callers := authtest.NewKey(), authtest.Tokens{bearer: authtest.User(owner)}
	cfg := config.New([]string{"HOME=" + t.TempDir()})
	cfg.MetricsListen = "127.0.0.1:0"
	templates := template.NewSet(template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python", Image: "python", Workspace: "/workspace",
		AuthMode: template.AuthPicoD, Resources: sandbox.Resources{MemoryBytes: 1 << 30}, IdleTimeout: time.Hour, MaxDuration: time.Hour,
		WarmPoolSize: 2, Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: sandbox.AgentPort}},
	})
	s := &server{cfg: cfg, log: slog.New(slog.NewTextHandler(p.log, nil))}
	of := manager.Config{
		Driver: driver, Templates: templates, Authenticator: callers, BootstrapKey: key, RouterKey: &key.PublicKey, Audit: audit.Nothing{},
		Logger: s.log, SessionChanged: func(rec session.Session) { s.router.SessionChanged(rec) }, MemoryBudget: 8 << 30,
		HoldRequests: func(id string, idle bool) (func(), bool) { return s.router.Hold(id, idle) },
	}
	data := router.Config{Dialer: router.ByID{Sandboxes: driver}, Authenticator: callers, SigningKey: key, Logger: s.log, Audit: audit.Nothing{}}
	change(cfg, &of, &data)
	var undo func() error
	var err error
	if s.telemetry, undo, err = openTelemetry(t.Context(), cfg, s.log, "1.2.3", nil); err != nil {
		t.Fatal(err)
	}
	p.telemetry = s.telemetry
	s.store = s.telemetry.metrics.Store(store)
	of.Store, data.Sessions = s.store, s.store
	s.manager = s.telemetry.manager(of, driver)
	data.Creator, data.Waker = s.manager, s.manager
	s.router = s.telemetry.router(data)
	if err := s.manager.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.telemetry.run(ctx) })
	srv := httptest.NewServer(s.handler())
	p.url = srv.URL
	p.stop = sync.OnceFunc(func() {
		srv.Close()
		if err := s.manager.Close(context.Background()); err != nil {
			t.Error(err)
		}
		s.router.Close()
		cancel()
		running.Wait()
		for _, end := range []func() error{driver.Close, store.Close, undo} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(p.stop)
	return p
}

// do sends a request of the owner's and returns the answer.
func (p *told) do(method, path, id, body, traceparent string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	if id != "" {
		req.Header.Set(api.HeaderSessionID, id)
	}
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(text)
}

// want is do, of which the answer has to be 200.
func (p *told) want(method, path, id, body, traceparent string) string {
	p.t.Helper()
	resp, text := p.do(method, path, id, body, traceparent)
	if resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s %s = %d %s", method, path, resp.StatusCode, text)
	}
	return text
}

func (p *told) create(traceparent string) string {
	p.t.Helper()
	var made api.CreateResponse
	if err := json.Unmarshal([]byte(p.want("POST", "/v1/code-interpreter", "", `{"name":"python","namespace":"default"}`, traceparent)), &made); err != nil {
		p.t.Fatal(err)
	}
	return made.SessionID
}

const files = "/v1/namespaces/default/code-interpreters/python/invocations/api/files"

func (p *told) put(id, traceparent string) {
	p.t.Helper()
	p.want("POST", files, id, `{"path":"`+file+`","content":"`+base64.StdEncoding.EncodeToString([]byte(content))+`"}`, traceparent)
}

// scrape reads the metrics from the listener that they have.
func (p *told) scrape() map[string]string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.telemetry.url(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("scrape = %d %s, %v", resp.StatusCode, text, err)
	}
	series := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && !strings.HasPrefix(line, "#") {
			series[name+"}"] = value
		} else if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			series[name] = value
		}
	}
	return series
}
