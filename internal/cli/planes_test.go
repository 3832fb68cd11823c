package cli_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
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
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

// serveControlPlane gives a script a real control plane over sandboxes in
// memory, as $CONTROL, and the token for it.
func serveControlPlane(env *testscript.Env) error {
	token := "ac_" + strings.Repeat("x", 43)
	file := filepath.Join(env.WorkDir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	driver := fake.New(fake.Config{Host: fake.NewHost(func(sandbox.Spec) map[uint16]http.Handler {
		return map[uint16]http.Handler{sandbox.AgentPort: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "{}")
		})}
	})})
	store := sqlite.New(filepath.Join(env.WorkDir, "sessions.db"))
	logger := slog.New(slog.DiscardHandler)
	m := manager.New(manager.Config{
		Store: store, Driver: driver, Authenticator: auth.NewLocal(token),
		BootstrapKey: key, RouterKey: &key.PublicKey, Logger: logger,
		HoldRequests: func(string, bool) (func(), bool) { return func() {}, true },
		Templates: template.NewSet(template.Template{
			Kind: api.KindCodeInterpreter, Namespace: "default", Name: "simple-codeinterpreter", Image: "python",
			Workspace: "/workspace", AuthMode: template.AuthPicoD, IdleTimeout: time.Hour, MaxDuration: time.Hour,
			Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 8080}},
		}),
	})
	for _, open := range []func(context.Context) error{driver.Open, store.Open, m.Open} {
		if err := open(context.Background()); err != nil {
			return err
		}
	}
	srv := httptest.NewServer(httpserve.Middleware{Logger: logger}.Wrap(m))
	env.Defer(func() {
		srv.Close()
		if err := errors.Join(m.Close(context.Background()), driver.Close(), store.Close()); err != nil {
			panic(err)
		}
	})
	env.Setenv("CONTROL", srv.URL)
	env.Setenv("AGENTCUBE_TOKEN_FILE", file)
	return nil
}
