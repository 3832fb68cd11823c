package cli

import (
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/router"
)

// TestUpChecksHosts: a web page that has given this machine's address a name of
// its own is refused, also where other machines may call.
func TestUpChecksHosts(t *testing.T) {
	for _, test := range []struct {
		listen  string
		allowed config.Hosts
		host    string
		status  int
	}{
		{"127.0.0.1:8080", nil, "localhost:8080", 200},
		{"127.0.0.1:8080", nil, "rebound.example:8080", 403},
		{"0.0.0.0:8080", nil, "rebound.example:8080", 403},
		{"0.0.0.0:8080", nil, "0.0.0.0:8080", 403},
		{"0.0.0.0:8080", config.Hosts{"cube.example"}, "rebound.example:8080", 403},
		{"0.0.0.0:8080", config.Hosts{"cube.example"}, "cube.example:8080", 200},
		{"cube.example:8080", nil, "cube.example:8080", 200},
		{"192.0.2.7:8080", nil, "192.0.2.7:8080", 200},
	} {
		cfg := config.New([]string{"HOME=" + t.TempDir()})
		cfg.Listen, cfg.AllowNonLoopback, cfg.AllowedHosts = test.listen, true, test.allowed
		s := &server{cfg: cfg, log: slog.New(slog.DiscardHandler), router: router.New(router.Config{})}
		var err error
		if s.telemetry, _, err = openTelemetry(t.Context(), cfg, s.log, "test", nil); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/health/live", nil)
		r.Host = test.host
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("listening on %s as %q, host %q got %d, want %d", test.listen, test.allowed.String(), test.host, w.Code, test.status)
		}
	}
}
