package planes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/api"
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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const guard = time.Minute

// planes are both on one listener, as `agentcube up` has them.
type planes struct {
	t      *testing.T
	host   *fake.Host
	store  *sqlite.Store
	url    string
	client *http.Client
}

func start(t *testing.T, tmpl func(*template.Template)) *planes {
	t.Helper()
	p := &planes{t: t, host: fake.NewHost(nil), store: sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))}
	driver := fake.New(fake.Config{Host: p.host, Isolation: "gvisor", Hooks: fake.Hooks{
		// As a real one, it takes a moment.
		Pause:  func(context.Context, string) error { time.Sleep(time.Millisecond); return nil },
		Resume: func(context.Context, string) error { time.Sleep(time.Millisecond); return nil },
	}})
	for _, open := range []func(context.Context) error{p.store.Open, driver.Open} {
		if err := open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	python := template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python", Image: "python", Workspace: "/workspace",
		AuthMode: template.AuthPicoD, Resources: sandbox.Resources{MemoryBytes: 1 << 30}, IdleTimeout: time.Hour, MaxDuration: time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: sandbox.AgentPort}},
	}
	tmpl(&python)
	bootstrap, signing := authtest.NewKey(), authtest.NewKey()
	callers := authtest.Tokens{"alice": authtest.User("alice")}
	logger := slog.New(slog.DiscardHandler)
	var rt *router.Router
	m := manager.New(manager.Config{
		Store: p.store, Driver: driver, Templates: template.NewSet(python), Authenticator: callers,
		BootstrapKey: bootstrap, RouterKey: &signing.PublicKey, Logger: logger, PollInterval: 2 * time.Millisecond,
		SessionChanged: func(s session.Session) { rt.SessionChanged(s) },
		HoldRequests:   func(id string, idle bool) (func(), bool) { return rt.Hold(id, idle) },
	})
	rt = router.New(router.Config{
		Sessions: p.store, Dialer: router.ByID{Sandboxes: driver}, Creator: m, Waker: m, Authenticator: callers, SigningKey: signing, Logger: logger,
	})
	if err := m.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	srv := httptest.NewServer(httpserve.Middleware{Logger: logger}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if router.Owns(r.URL.Path) {
			rt.ServeHTTP(w, r)
			return
		}
		m.ServeHTTP(w, r)
	})))
	p.url = srv.URL
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	p.client = &http.Client{Transport: transport, Timeout: guard}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), guard)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
		rt.Close()
		for _, id := range p.host.IDs() { // those that sleep
			p.host.Lose(id)
		}
		_ = driver.Close()
		_ = p.store.Close()
	})
	return p
}

// do sends a request of alice's and returns status and body.
func (p *planes) do(method, path, id, body string) (int, string) {
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return 0, ""
	}
	req.Header.Set("Authorization", "Bearer alice")
	if id != "" {
		req.Header.Set(api.HeaderSessionID, id)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Errorf("%s %s: %v", method, path, err)
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Errorf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

func (p *planes) create() string {
	p.t.Helper()
	status, text := p.do("POST", "/v1/code-interpreter", "", `{"name":"python","namespace":"default"}`)
	var made api.CreateResponse
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != http.StatusOK {
		p.t.Fatalf("create = %d %s", status, text)
	}
	return made.SessionID
}

const files = "/v1/namespaces/default/code-interpreters/python/invocations/api/files"

// put writes a file in a session.
func (p *planes) put(id, name, content string) (int, string) {
	body, err := json.Marshal(map[string]string{"path": name, "content": base64.StdEncoding.EncodeToString([]byte(content))})
	if err != nil {
		p.t.Error(err)
	}
	return p.do("POST", files, id, string(body))
}

func (p *planes) get(id, name string) (int, string) { return p.do("GET", files+"/"+name, id, "") }

func (p *planes) state(id string) api.State {
	rec, err := p.store.Get(context.Background(), id)
	if err != nil {
		p.t.Error(err)
	}
	return rec.State
}

// pauses counts how often a session is seen asleep until stop is called.
func (p *planes) pauses(id string) (stop func() int) {
	over, count := make(chan struct{}), make(chan int)
	go func() {
		n, asleep := 0, false
		for {
			select {
			case <-over:
				count <- n
				return
			case <-time.After(200 * time.Microsecond):
			}
			now := p.host.Paused(manager.SandboxID(id))
			if now && !asleep {
				n++
			}
			asleep = now
		}
	}()
	return func() int { close(over); return <-count }
}

// TestNobodyNoticesIdlePauses: sessions that are put to sleep all the time serve
// every request, and keep what they were told.
func TestNobodyNoticesIdlePauses(t *testing.T) {
	p := start(t, func(t *template.Template) { t.PauseAfter = 3 * time.Millisecond })
	var wg sync.WaitGroup
	for range 3 {
		id := p.create()
		stop := p.pauses(id)
		var clients sync.WaitGroup
		for c := range 3 {
			clients.Go(func() {
				name := fmt.Sprint("file", c)
				for i := range 30 {
					if status, text := p.put(id, name, fmt.Sprint(i)); status != http.StatusOK {
						t.Errorf("write = %d %s", status, text)
					}
					time.Sleep(rand.N(8 * time.Millisecond))
					if status, text := p.get(id, name); status != http.StatusOK || text != fmt.Sprint(i) {
						t.Errorf("read = %d %s, want %d", status, text, i)
					}
				}
			})
		}
		wg.Go(func() {
			clients.Wait()
			if n := stop(); n == 0 {
				t.Error("the session never slept: the test shows nothing")
			} else {
				t.Logf("slept %d times", n)
			}
		})
	}
	wg.Wait()
}

// TestOwnerPausesUnderLoad: a request that a pause cuts off says so, and every
// other one is served; what was acknowledged is there.
func TestOwnerPausesUnderLoad(t *testing.T) {
	p := start(t, func(*template.Template) {})
	id := p.create()
	var working, served, cut atomic.Int32
	working.Store(4)
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			defer working.Add(-1)
			name := fmt.Sprint("file", c)
			for i := range 40 {
				for done := false; !done; {
					switch status, text := p.put(id, name, fmt.Sprint(i)); {
					case status == http.StatusOK:
						done = true
						served.Add(1)
					case status == http.StatusConflict && strings.Contains(text, string(api.CodeSessionPaused)):
						cut.Add(1)
					default:
						t.Errorf("write = %d %s", status, text)
						return
					}
				}
				if status, text := p.get(id, name); status == http.StatusOK && text != fmt.Sprint(i) {
					t.Errorf("read = %s, want %d", text, i)
				}
			}
		})
	}
	wg.Go(func() {
		for working.Load() > 0 {
			for _, verb := range []string{"pause", "pause", "resume"} {
				if status, text := p.do("POST", "/v1/sessions/"+id+"/"+verb, "", ""); status != http.StatusOK {
					t.Errorf("%s = %d %s", verb, status, text)
				}
			}
			time.Sleep(rand.N(4 * time.Millisecond))
		}
	})
	wg.Wait()
	t.Logf("%d served, %d cut off", served.Load(), cut.Load())
}

// TestForksUnderLoad forks and keeps a session that is used and paused meanwhile:
// each copy has what its parent was told before.
func TestForksUnderLoad(t *testing.T) {
	p := start(t, func(t *template.Template) { t.PauseAfter = 3 * time.Millisecond })
	id := p.create()
	if status, text := p.put(id, "first", "kept"); status != http.StatusOK {
		t.Fatalf("write = %d %s", status, text)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 25 {
			if status, text := p.put(id, "other", fmt.Sprint(i)); status != http.StatusOK {
				t.Errorf("write = %d %s", status, text)
			}
			time.Sleep(rand.N(8 * time.Millisecond))
		}
	})
	for f := range 4 {
		wg.Go(func() {
			status, text := p.do("POST", "/v1/sessions/"+id+"/fork", "", `{"count":3}`)
			var made api.ForkResponse
			if err := json.Unmarshal([]byte(text), &made); err != nil || status != http.StatusOK {
				t.Errorf("fork = %d %s", status, text)
			}
			name := fmt.Sprint("c", f)
			if status, text := p.do("POST", "/v1/sessions/"+id+"/checkpoints", "", `{"name":"`+name+`"}`); status != http.StatusOK {
				t.Errorf("checkpoint = %d %s", status, text)
			}
			status, text = p.do("POST", "/v1/code-interpreter", "", `{"checkpoint":"`+name+`"}`)
			var child api.CreateResponse
			if err := json.Unmarshal([]byte(text), &child); err != nil || status != http.StatusOK {
				t.Errorf("create = %d %s", status, text)
			}
			for _, s := range append(made.Sessions, child) {
				if status, text := p.get(s.SessionID, "first"); status != http.StatusOK || text != "kept" {
					t.Errorf("read of a copy = %d %s", status, text)
				}
			}
		})
	}
	wg.Wait()
}

// TestDeletedUnderLoad: whatever a session is doing, its end is told as that.
func TestDeletedUnderLoad(t *testing.T) {
	p := start(t, func(t *template.Template) { t.PauseAfter = time.Millisecond })
	for range 6 {
		id := p.create()
		var over atomic.Bool
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for !over.Load() {
					status, text := p.put(id, "f", "x")
					if status != http.StatusOK && (status != http.StatusGone || !strings.Contains(text, string(api.FateDeleted))) {
						t.Errorf("write = %d %s", status, text)
					}
				}
			})
		}
		time.Sleep(rand.N(10 * time.Millisecond))
		if status, text := p.do("DELETE", "/v1/sessions/"+id, "", ""); status != http.StatusOK {
			t.Errorf("delete = %d %s", status, text)
		}
		if status, _ := p.put(id, "f", "x"); status != http.StatusGone || p.state(id) != api.StateEnded {
			t.Errorf("write after the end = %d", status)
		}
		over.Store(true)
		wg.Wait()
	}
	if ids := p.host.IDs(); len(ids) != 0 {
		t.Errorf("sandboxes left: %q", ids)
	}
}
