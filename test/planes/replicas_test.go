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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/remote"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/template"
)

// replicas are two Workload Managers and two Routers that know of each other only what
// is in a store, as on several machines.
type replicas struct {
	t        *testing.T
	host     *fake.Host
	managers [2]*httptest.Server
	routers  [2]*httptest.Server
	client   *http.Client
}

func startReplicas(t *testing.T) *replicas {
	t.Helper()
	rs := &replicas{t: t, host: fake.NewHost(nil)}
	server := redistest.Any(t).Start(t)
	python := template.Template{
		Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python", Image: "python", Workspace: "/workspace",
		AuthMode: template.AuthPicoD, Resources: sandbox.Resources{MemoryBytes: 1 << 30}, IdleTimeout: time.Hour, MaxDuration: time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: sandbox.AgentPort}},
	}
	bootstrap, signing := authtest.NewKey(), authtest.NewKey()
	callers := authtest.Tokens{"alice": authtest.User("alice")}
	logger := slog.New(slog.DiscardHandler)
	serve := func(h http.Handler) *httptest.Server {
		srv := httptest.NewServer(httpserve.Middleware{Logger: logger}.Wrap(h))
		t.Cleanup(srv.Close)
		return srv
	}
	// Each has a connection to the store, and a driver, of its own.
	open := func() (*redis.Store, *fake.Driver) {
		store := redis.New(redis.Config{URL: "redis://" + server.Addr()})
		driver := fake.New(fake.Config{Host: rs.host, Isolation: "gvisor"})
		for _, open := range []func(context.Context) error{store.Open, driver.Open} {
			if err := open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			_ = driver.Close()
			_ = store.Close()
		})
		return store, driver
	}
	t.Cleanup(func() {
		for _, id := range rs.host.IDs() {
			rs.host.Lose(id)
		}
	})
	for i := range rs.managers {
		store, driver := open()
		m := manager.New(manager.Config{
			Store: store, Driver: driver, Templates: template.NewSet(python), Authenticator: callers, BootstrapKey: bootstrap,
			RouterKey: &signing.PublicKey, Logger: logger, PollInterval: 2 * time.Millisecond, Shared: true, SettleInterval: 5 * time.Millisecond,
		})
		if err := m.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- m.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), guard)
			defer cancel()
			if err := m.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		rs.managers[i] = serve(m)
	}
	for i := range rs.routers {
		store, driver := open()
		creator, err := remote.New(remote.Config{URL: rs.managers[i].URL})
		if err != nil {
			t.Fatal(err)
		}
		rt := router.New(router.Config{
			Sessions: store, Dialer: router.ByID{Sandboxes: driver}, Creator: creator, Waker: creator, Authenticator: callers,
			SigningKey: signing, Logger: logger, MaxRecordAge: 5 * time.Millisecond, RecheckInterval: 5 * time.Millisecond,
		})
		t.Cleanup(func() {
			rt.Close()
			creator.Close()
		})
		rs.routers[i] = serve(rt)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	rs.client = &http.Client{Transport: transport, Timeout: guard}
	t.Cleanup(transport.CloseIdleConnections)
	return rs
}

// do sends a request of alice's to one of the servers.
func (rs *replicas) do(srv *httptest.Server, method, path, id, body string) (status int, header http.Header, text string, err error) {
	req, err := http.NewRequestWithContext(rs.t.Context(), method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	req.Header.Set("Authorization", "Bearer alice")
	if id != "" {
		req.Header.Set(api.HeaderSessionID, id)
	}
	resp, err := rs.client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(all), err
}

// file is the body of a request that writes a file.
func file(name, content string) string {
	body, err := json.Marshal(map[string]string{"path": name, "content": base64.StdEncoding.EncodeToString([]byte(content))})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// create has a Router make a session for a request that names none.
func (rs *replicas) create(srv *httptest.Server) string {
	rs.t.Helper()
	status, header, text, err := rs.do(srv, "POST", files, "", file("first", "kept"))
	if id := header.Get(api.HeaderSessionID); err == nil && status == http.StatusOK && id != "" {
		return id
	}
	rs.t.Fatalf("create = %d %s, %v", status, text, err)
	return ""
}

// TestReplicas: a session that one Router had one Workload Manager make is used by way
// of the other Router, and ended by way of the other Workload Manager, of which both
// Routers hear.
func TestReplicas(t *testing.T) {
	rs := startReplicas(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			id := rs.create(rs.routers[i%2])
			for r := range 8 {
				if status, _, text, err := rs.do(rs.routers[r%2], "GET", files+"/first", id, ""); err != nil || status != http.StatusOK || text != "kept" {
					t.Errorf("read = %d %s, %v", status, text, err)
				}
				time.Sleep(rand.N(5 * time.Millisecond))
			}
			if status, _, text, err := rs.do(rs.managers[(i+1)%2], "DELETE", "/v1/sessions/"+id, "", ""); err != nil || status != http.StatusOK {
				t.Errorf("delete = %d %s, %v", status, text, err)
			}
			for _, srv := range rs.routers {
				if status, _, text, err := rs.do(srv, "GET", files+"/first", id, ""); err != nil || status != http.StatusGone || !strings.Contains(text, string(api.FateDeleted)) {
					t.Errorf("read of an ended session = %d %s, %v", status, text, err)
				}
			}
		})
	}
	wg.Wait()
	if ids := rs.host.IDs(); len(ids) != 0 {
		t.Errorf("sandboxes left: %q", ids)
	}
}

// TestRouterDies: when one of two Routers breaks off in the middle, clients that send
// what can be sent twice to the other one lose nothing, and neither does the session.
func TestRouterDies(t *testing.T) {
	rs := startReplicas(t)
	id := rs.create(rs.routers[0])
	var acknowledged, broken atomic.Int32
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("file", c)
			again := func(method, path, body string) (int, string) {
				for try := range 4 {
					status, _, text, err := rs.do(rs.routers[min(try, 1)], method, path, id, body)
					if err == nil && status == http.StatusOK {
						return status, text
					}
					broken.Add(1)
				}
				return 0, "never answered"
			}
			for i := range 60 {
				if status, text := again("POST", files, file(name, fmt.Sprint(i))); status != http.StatusOK {
					t.Errorf("write = %d %s", status, text)
				}
				acknowledged.Add(1)
				if status, text := again("GET", files+"/"+name, ""); status != http.StatusOK || text != fmt.Sprint(i) {
					t.Errorf("read = %d %s, want %d", status, text, i)
				}
			}
		})
	}
	wg.Go(func() {
		for acknowledged.Load() < 40 {
			time.Sleep(time.Millisecond)
		}
		rs.routers[0].Listener.Close()
		rs.routers[0].CloseClientConnections()
	})
	wg.Wait()
	if broken.Load() == 0 {
		t.Error("nothing was sent to the Router that had died: the test shows nothing")
	}
	if ids := rs.host.IDs(); len(ids) != 1 {
		t.Errorf("sandboxes %q, want the one", ids)
	}
}
