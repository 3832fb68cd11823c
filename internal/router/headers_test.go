package router_test

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestSecurityHeaders: which answers may be kept and rendered by whom. Whatever a
// sandbox says, and in which order, what is AgentCube's to say is said once.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	hostile := http.Header{
		"Cache-Control": {"public, max-age=1"}, "Content-Security-Policy": {"default-src *"}, "X-Content-Type-Options": {"sniff"}, "Set-Cookie": {"a=b"},
		"X-Agentcube-Session-Id": {"other"}, "X-Request-Id": {"other"}, "X-Agentcube-Trace-Id": {"other"}, "Strict-Transport-Security": {"max-age=9"}, "Clear-Site-Data": {"*"},
		"Alt-Svc": {`h2="evil.example:80"`}, "Service-Worker-Allowed": {"/"}, "Report-To": {"{}"}, "Nel": {"{}"}, "Reporting-Endpoints": {"a"}, "X-Own": {"kept"},
	}
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		for name, values := range hostile {
			rw.Header()[name] = values
		}
		if r.URL.Path == "/hint" {
			rw.WriteHeader(http.StatusEarlyHints)
		}
		if r.URL.Path == "/upgrade" {
			conn, buf, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = buf.WriteString("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n")
			_ = rw.Header().Write(buf)
			_, _ = buf.WriteString("\r\n")
			_ = buf.Flush()
		}
	}, nil)
	managed, bound := w.add(nil), w.add(keyBound(t))
	none := w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	token := sdkToken(t, keys().client)
	ours := map[string]string{"Cache-Control": "no-store", "Content-Security-Policy": httpserve.ContentPolicy}
	theirs := map[string]string{"Cache-Control": "public, max-age=1", "Content-Security-Policy": "default-src *"}
	for _, test := range []struct {
		name, method, path, id, token string
		want                          map[string]string
		cookie                        bool
	}{
		{"health", "GET", "/health/live", "", "", ours, false},
		{"not found", "GET", "/v1/namespaces/x", "", "", ours, false},
		{"redirect", "GET", base, managed.ID, "alice", ours, false},
		{"unauthorized", "GET", base + "/", managed.ID, "", ours, false},
		{"no session", "GET", base + "/", "none", "alice", ours, false},
		{"refused for PicoD", "GET", base + "/", bound.ID, "", ours, false},
		{"managed", "GET", base + "/", managed.ID, "alice", ours, false},
		{"managed, after a hint", "GET", base + "/hint", managed.ID, "alice", ours, false},
		{"managed, another protocol", "GET", base + "/upgrade", managed.ID, "alice", ours, false},
		{"key-bound", "POST", base + "/", bound.ID, token, ours, false},
		{"key-bound, after a hint", "POST", base + "/hint", bound.ID, token, ours, false},
		{"own server", "GET", base + "/", none.ID, "alice", theirs, true},
		{"own server, after a hint", "GET", base + "/hint", none.ID, "alice", theirs, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := []string{"X-Agentcube-Session-Id", test.id}
			if test.token != "" {
				header = append(header, "Authorization", test.token)
			}
			if strings.HasSuffix(test.path, "/upgrade") {
				header = append(header, "Connection", "Upgrade", "Upgrade", "x")
			}
			got := w.do(test.method, test.path, "", header...).header
			want := map[string]string{"X-Content-Type-Options": "nosniff", "X-Request-Id": "test-1"}
			for name, value := range test.want {
				want[name] = value
			}
			if test.token != "" && test.id != "none" && test.name != "redirect" {
				want["X-Agentcube-Session-Id"] = test.id
			}
			for name, value := range want {
				if !slices.Equal(got[name], []string{value}) {
					t.Errorf("%s: %q, want %q", name, got[name], value)
				}
			}
			for _, name := range []string{"Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc", "Service-Worker-Allowed", "Report-To", "Nel", "Reporting-Endpoints", "Server", "X-Agentcube-Trace-Id"} {
				if len(got[name]) > 0 {
					t.Errorf("%s: %q", name, got[name])
				}
			}
			if cookies := got["Set-Cookie"]; (len(cookies) > 0) != test.cookie {
				t.Errorf("Set-Cookie: %q", cookies)
			}
		})
	}
}

// TestHostileAnswers: a sandbox whose server does not keep to HTTP harms only the
// answer that it gives: no header comes of a value, and nothing after the answer.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	var raw string
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/next" {
			_, _ = io.WriteString(rw, "next")
			return
		}
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = buf.WriteString(raw)
		_ = buf.Flush()
	}, nil)
	addr := w.listen(httpguard.Pace{})
	rec := w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	request := func(path string) string {
		return "GET " + base + path + " HTTP/1.1\r\nHost: localhost\r\nX-Agentcube-Session-Id: " + rec.ID + "\r\nAuthorization: Bearer alice\r\nConnection: close\r\n\r\n"
	}
	for name, answer := range map[string]string{
		"CR in a value":        "HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"LF in a value":        "HTTP/1.1 200 OK\r\nX-A: a\n\tSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"folded":               "HTTP/1.1 200 OK\r\nX-A: a\r\n Set-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"NUL in a value":       "HTTP/1.1 200 OK\r\nX-A: a\x00Set-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"CR in the reason":     "HTTP/1.1 200 OK\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"odd name":             "HTTP/1.1 200 OK\r\nX A: a\r\nContent-Length: 0\r\n\r\n",
		"two lengths":          "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 90\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: evil=1\r\n\r\n",
		"length and chunks":    "HTTP/1.1 200 OK\r\nContent-Length: 90\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: evil=1\r\n\r\n",
		"two answers":          "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
		"endless header":       "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\nContent-Length: 0\r\n\r\n",
		"hints without end":    strings.Repeat("HTTP/1.1 103 Early Hints\r\nSet-Cookie: evil=1\r\n\r\n", 20<<10) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"hint with a cookie":   "HTTP/1.1 103 Early Hints\r\nSet-Cookie: evil=1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"switch nobody wanted": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: evil=1\r\n\r\n",
		"odd status":           "HTTP/1.1 99 Odd\r\nSet-Cookie: evil=1\r\n\r\n",
		"no HTTP":              "220 mail.example\r\nSet-Cookie: evil=1\r\n\r\n",
	} {
		raw = answer
		said := guardtest.Talk(t, addr, request("/"))
		if len(guardtest.Statuses(t, said)) != 1 {
			t.Errorf("%s: answered %q", name, said)
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(said)), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if len(resp.Header["Set-Cookie"]) > 0 || resp.Header.Get("X-Agentcube-Session-Id") != rec.ID {
			t.Errorf("%s: answered %q", name, said)
		}
		if said := guardtest.Talk(t, addr, request("/next")); !strings.HasSuffix(said, "next\r\n0\r\n\r\n") && !strings.HasSuffix(said, "\r\n\r\nnext") {
			t.Errorf("%s: the next request is answered %q", name, said)
		}
	}
}

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
