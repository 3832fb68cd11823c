package router_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestRedirects: where PicoD sends a client leads there through the Router too. A
// template's own server is not corrected.
func TestRedirects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/to" {
			rw.Header().Set("Location", r.URL.Query().Get("l"))
			rw.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		if to := strings.TrimSuffix(r.URL.Path, "/"); to != r.URL.Path {
			http.Redirect(rw, r, to, http.StatusTemporaryRedirect) // as PicoD does
		}
	}, nil)
	rec := w.add(nil)
	none := w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	const odd = "/v1/namespaces/default/code-interpreters/pyth%6Fn/invocations"
	for _, test := range []struct{ id, path, want string }{
		{rec.ID, base + "/api/files/", base + "/api/files"},
		{rec.ID, base + "/api/execute/", base + "/api/execute"},
		{rec.ID, odd + "/api/files/", odd + "/api/files"},
		{rec.ID, base + "/to?l=http://elsewhere.example/x", "http://elsewhere.example/x"},
		{rec.ID, base + "/to?l=//elsewhere.example/x", "//elsewhere.example/x"},
		{rec.ID, base + "/to?l=x", "x"},
		{rec.ID, base + "/to?l=%2Fa%0D%0ASet-Cookie:%20a=b", base + "/a  Set-Cookie: a=b"},
		{none.ID, base + "/api/files/", "/api/files"},
	} {
		got := w.do("POST", test.path, "", "X-Agentcube-Session-Id", test.id, "Authorization", "alice")
		if to := got.header.Get("Location"); got.status != http.StatusTemporaryRedirect || to != test.want || len(got.header["Set-Cookie"]) != 0 {
			t.Errorf("%s leads to %d %q, want %q", test.path, got.status, to, test.want)
		}
	}
	if got := w.do("POST", base+"/api/files", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"); got.status != 200 {
		t.Errorf("where it leads to = %d", got.status)
	}
}
