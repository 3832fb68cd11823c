package router_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// BenchmarkForward compares a small request to a sandbox without a Router, and
// through one to each kind of session.
func BenchmarkForward(b *testing.B) {
	answer := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"exit_code":0}`) }
	for _, bench := range []struct {
		name string
		auth api.Auth
	}{{"none", api.AuthNone}, {"key-bound", api.AuthClientKey}, {"managed", api.AuthManaged}} {
		b.Run(bench.name, func(b *testing.B) {
			w := newWorld(b, answer, nil)
			token := "alice"
			rec := w.add(func(s *session.Session) {
				if bench.auth == api.AuthClientKey {
					keyBound(b)(s)
					token = sdkToken(b, keys().client)
				}
				s.Auth = bench.auth
			})
			for b.Loop() {
				if got := w.do("POST", base+"/api/execute", "{}", "X-Agentcube-Session-Id", rec.ID, "Authorization", token); got.status != 200 {
					b.Fatal(got)
				}
			}
		})
	}
	b.Run("direct", func(b *testing.B) {
		w := newWorld(b, answer, nil)
		rec := w.add(nil)
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return w.driver.Dial(ctx, rec.SandboxID, sandbox.AgentPort)
		}}
		defer transport.CloseIdleConnections()
		for b.Loop() {
			resp, err := (&http.Client{Transport: transport}).Post("http://sandbox/api/execute", "", strings.NewReader("{}"))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
	})
}
