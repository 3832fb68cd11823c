package cli_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

// oddAgent is the agent in memory, but for commands of which scripts want to see
// an odd end: their first word says what becomes of them.
type oddAgent struct{ fake.Copier }

func agent(spec sandbox.Spec) map[uint16]http.Handler {
	if spec.OwnServer {
		return map[uint16]http.Handler{9000: ownServer()}
	}
	return map[uint16]http.Handler{sandbox.AgentPort: oddAgent{fake.NewAgent(spec)}}
}

// ownServer is an agent's: it counts what it is asked.
func ownServer() http.Handler {
	var asked int // by one request after the other
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/text" {
			_, _ = io.WriteString(w, "just words")
			return
		}
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"asked": asked, "method": r.Method, "path": r.URL.RequestURI(), "body": string(body),
			"type": r.Header.Get("Content-Type"), "key": r.Header.Get("X-Key"), "authorization": r.Header.Get("Authorization"),
		})
	})
}

func (a oddAgent) Copy(spec sandbox.Spec) http.Handler {
	copied, ok := a.Copier.Copy(spec).(fake.Copier)
	if !ok {
		panic("the copy of an agent is none")
	}
	return oddAgent{copied}
}

func (a oddAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	results := map[string]string{
		"hello":  `{"exit_code":0,"stdout":"hello\n","stderr":"","duration":0.5}`,
		"fails":  `{"exit_code":7,"stdout":"half\n","stderr":"no <more>","duration":0.25,"stdout_truncated":true}`,
		"bytes":  `{"exit_code":0,"stdout":"\ufffd","stdout_base64":"/w==","stderr":"","duration":0}`,
		"nofile": `{"exit_code":1,"stdout":"","stderr":"not found","start_error":"not_found","duration":0}`,
		"killed": `{"exit_code":-1,"stdout":"","stderr":"","duration":0}`,
	}
	var req struct {
		Command []string `json:"command"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.URL.Path == "/api/execute" && json.Unmarshal(body, &req) == nil && len(req.Command) > 0 {
		if answer, ok := results[req.Command[0]]; ok {
			_, _ = io.WriteString(w, answer)
			return
		}
	}
	a.Copier.ServeHTTP(w, r)
}

// servePlanes gives a script a real control plane and Router over sandboxes in
// memory, as $CONTROL, and the token for them.
func servePlanes(env *testscript.Env) error {
	token := "ac_" + strings.Repeat("x", 43)
	file := filepath.Join(env.WorkDir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	driver := fake.New(fake.Config{Host: fake.NewHost(agent)})
	store := sqlite.New(filepath.Join(env.WorkDir, "sessions.db"))
	logger := slog.New(slog.DiscardHandler)
	tokens := auth.NewTokens(store, nil)
	callers := auth.Chain{auth.NewLocal(token), tokens}
	var rt *router.Router
	m := manager.New(manager.Config{
		SessionChanged: func(s session.Session) { rt.SessionChanged(s) },
		Store:          store, Driver: driver, Authenticator: callers, Tokens: tokens,
		TokenRevoked: func(name string) { rt.Revoked(name) },
		BootstrapKey: key, RouterKey: &key.PublicKey, Logger: logger,
		HoldRequests: func(id string, idle bool) (func(), bool) { return rt.Hold(id, idle) },
		Templates: template.NewSet(template.Template{
			Kind: api.KindCodeInterpreter, Namespace: "default", Name: "simple-codeinterpreter", Image: "python",
			Workspace: "/workspace", AuthMode: template.AuthPicoD, IdleTimeout: time.Hour, MaxDuration: time.Hour,
			Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 8080}},
		}, template.Template{
			Kind: api.KindAgentRuntime, Namespace: "default", Name: "my-agent", Image: "python",
			AuthMode: template.AuthNone, IdleTimeout: time.Hour, MaxDuration: time.Hour,
			Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 9000}},
		}),
	})
	rt = router.New(router.Config{
		Sessions: store, Dialer: router.ByID{Sandboxes: driver}, Creator: m, Waker: m, Authenticator: callers, SigningKey: key, Logger: logger,
	})
	for _, open := range []func(context.Context) error{driver.Open, store.Open, m.Open} {
		if err := open(context.Background()); err != nil {
			return err
		}
	}
	srv := httptest.NewServer(httpserve.Middleware{Logger: logger}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if router.Owns(r.URL.Path) {
			rt.ServeHTTP(w, r)
			return
		}
		m.ServeHTTP(w, r)
	})))
	env.Defer(func() {
		srv.Close()
		rt.Close()
		if err := errors.Join(m.Close(context.Background()), driver.Close(), store.Close()); err != nil {
			panic(err)
		}
	})
	env.Setenv("CONTROL", srv.URL)
	env.Setenv("AGENTCUBE_TOKEN_FILE", file)
	return nil
}
