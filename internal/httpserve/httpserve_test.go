package httpserve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

func TestMain(m *testing.M) { guardtest.Main(m) }

// serve sends a request through the middleware and returns the answer and the log.
func serve(h http.Handler, set func(*http.Request)) (*httptest.ResponseRecorder, string) {
	var log bytes.Buffer
	m := httpserve.Middleware{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	r := httptest.NewRequest("GET", "http://localhost:8080/path?secret=query", nil)
	if set != nil {
		set(r)
	}
	w := httptest.NewRecorder()
	m.Wrap(h).ServeHTTP(w, r)
	return w, log.String()
}

func fail(err error) http.Handler {
	return httpserve.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return err })
}

func TestErrorsBecomeAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		code   api.Code
		text   string
	}{
		{api.Errorf(418, "TEAPOT", "short and stout"), 418, "TEAPOT", "short and stout"},
		{fmt.Errorf("wrapped: %w", api.Errorf(404, api.CodeNotFound, "no")), 404, api.CodeNotFound, "no"},
		{fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 7}), 413, api.CodeBodyTooLarge, "request body is larger than 7 bytes"},
		{fmt.Errorf("x: %w", session.ErrNotFound), 404, api.CodeSessionNotFound, "session not found"},
		{session.ErrBadCursor, 400, api.CodeInvalidRequest, "malformed page token"},
		{session.ErrUnavailable, 500, api.CodeStoreFailed, "internal server error"},
		{fmt.Errorf("get: %w: %w", session.ErrUnavailable, session.ErrAway), 503, api.CodeUnavailable, "the session store is away, please try again"},
		{sandbox.ErrFull, 429, api.CodeServerOverloaded, "server overloaded, please try again later"},
		{sandbox.ErrNoImage, 500, api.CodeImageNotFound, "the template's image was not found"},
		{context.DeadlineExceeded, 504, api.CodeSandboxTimeout, "request timed out"},
		{errors.New("password is hunter2"), 500, api.CodeInternal, "internal server error"},
	} {
		w, log := serve(fail(test.err), nil)
		want := fmt.Sprintf(`{"error":%q,"code":%q,"message":%q,"requestId":"ID","timestamp":"T"}`, test.text, test.code, test.text)
		body := regexp.MustCompile(`"requestId":"req-[A-Z2-7]+","timestamp":"\d{4}-\d\d-\d\dT[^"]+Z"`).
			ReplaceAllString(w.Body.String(), `"requestId":"ID","timestamp":"T"`)
		if w.Code != test.status || body != want {
			t.Errorf("%v: %d %s, want %d %s", test.err, w.Code, body, test.status, want)
		}
		if !strings.Contains(log, w.Header().Get("X-Request-Id")) || !strings.Contains(log, "request failed") {
			t.Errorf("%v: the log does not tell: %s", test.err, log)
		}
	}
}

func TestErrorHeaders(t *testing.T) {
	t.Parallel()
	e := httpserve.Overloaded()
	e.RetryAfter = 7
	w, _ := serve(fail(e), nil)
	if w.Header().Get("Retry-After") != "7" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("429 with headers %v", w.Header())
	}
	w, _ = serve(fail(api.Errorf(401, api.CodeUnauthorized, "who?")), nil)
	if w.Header().Get("WWW-Authenticate") != `Bearer realm="agentcube"` {
		t.Errorf("401 with headers %v", w.Header())
	}
	w, _ = serve(fail(context.Canceled), nil)
	if w.Code != httpserve.StatusClientClosedRequest || w.Body.Len() != 0 {
		t.Errorf("client gone: %d %q", w.Code, w.Body)
	}
}

// TestSecurityHeaders: every answer of ours says that it is not to be kept, or
// rendered, or taken for something else.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.Handler{
		"nothing": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "not found": http.HandlerFunc(httpserve.NotFound),
		"JSON":  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { httpserve.WriteJSON(w, 200, 1) }),
		"error": fail(errors.New("x")), "panic": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") }),
	} {
		w, _ := serve(h, nil)
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "Content-Security-Policy": httpserve.ContentPolicy, "X-Content-Type-Options": "nosniff", "Server": "",
		} {
			if got := strings.Join(w.Header()[header], "|"); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
	}
	w, _ := serve(fail(nil), func(r *http.Request) { r.Host = "evil.example" })
	if w.Code != 403 || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a page got %d %v", w.Code, w.Header())
	}
}

// TestErrorsAreNotShared: two answers made from one error do not meet.
func TestErrorsAreNotShared(t *testing.T) {
	t.Parallel()
	e := api.Errorf(404, api.CodeNotFound, "no")
	serve(fail(e), nil)
	if e.RequestID != "" || !e.Timestamp.IsZero() || e.Message != "" {
		t.Errorf("answering changed the error: %+v", e)
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	for id, taken := range map[string]bool{
		"a": true, "A-b_9.z": true, strings.Repeat("x", 128): true,
		"": false, strings.Repeat("x", 129): false, "a b": false, "a\"b": false, "é": false, "a/b": false,
	} {
		w, _ := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, httpserve.RequestID(r.Context()))
		}), func(r *http.Request) { r.Header.Set("X-Request-Id", id) })
		got := w.Header().Get("X-Request-Id")
		if (got == id) != taken || got == "" || got != w.Body.String() {
			t.Errorf("id %q: answered %q, context %q", id, got, w.Body)
		}
	}
}

// TestLogHoldsNoSecrets: neither query nor credentials nor bodies.
func TestLogHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	_, log := serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret-output") }),
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer secret-token") })
	for _, want := range []string{"path=/path", "status=200", "bytes=13", "method=GET"} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %q: %s", want, log)
		}
	}
	if strings.Contains(log, "secret") {
		t.Errorf("log holds a secret: %s", log)
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	w, log := serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }), nil)
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"code":"INTERNAL"`) || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("answer = %d %s", w.Code, w.Body)
	}
	if !strings.Contains(log, "handler panicked") || !strings.Contains(log, "boom") {
		t.Errorf("log = %s", log)
	}
	defer func() {
		if p := recover(); p != any(http.ErrAbortHandler) {
			t.Errorf("panic after the answer began ends as %v, want the connection broken off", p)
		}
	}()
	serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "half"); panic("boom") }), nil)
}

func TestHosts(t *testing.T) {
	t.Parallel()
	named := httpserve.Hosts{Names: []string{"cube.example", "203.0.113.7"}}
	for _, test := range []struct {
		hosts            httpserve.Hosts
		at, host, origin string
		ok               bool
	}{
		{httpserve.Hosts{}, "", "localhost", "", true},
		{httpserve.Hosts{}, "", "LOCALHOST:8080", "", true},
		{httpserve.Hosts{}, "", "127.0.0.1:8080", "", true},
		{httpserve.Hosts{}, "", "127.1.2.3", "", true},
		{httpserve.Hosts{}, "", "[::1]:8080", "", true},
		{httpserve.Hosts{}, "", "[::1]", "", true},
		{httpserve.Hosts{}, "", "evil.example:8080", "", false}, // DNS rebinding
		{httpserve.Hosts{}, "", "localhost.evil.example", "", false},
		{httpserve.Hosts{}, "", "127.0.0.1.evil.example", "", false},
		{httpserve.Hosts{}, "", "192.168.1.1:8080", "", false},
		{httpserve.Hosts{}, "", "", "", false},
		{named, "", "cube.example:8080", "", true},
		{named, "", "CUBE.example", "", true},
		{named, "", "other.example", "", false},
		{named, "", "cube.example.evil.example", "", false},
		// On an address that other machines reach.
		{named, "192.168.1.1", "192.168.1.1:8080", "", true},
		{named, "::ffff:192.168.1.1", "192.168.1.1:8080", "", true},
		{named, "fd00::7", "[fd00::7]:8080", "", true},
		{named, "192.168.1.1", "203.0.113.7", "", true},
		{named, "192.168.1.1", "192.168.1.2:8080", "", false},
		{named, "192.168.1.1", "evil.example:8080", "", false},
		{named, "192.168.1.1", "192.168.1.1.evil.example", "", false},
		{named, "192.168.1.1", "0.0.0.0:8080", "", false},
		{named, "192.168.1.1", "192.168.1.1:8080", "http://evil.example", false},

		{httpserve.Hosts{}, "", "localhost:8080", "http://localhost:8080", true},
		{httpserve.Hosts{}, "", "localhost:8080", "http://localhost:3000", false},
		{httpserve.Hosts{}, "", "localhost:8080", "http://127.0.0.1:8080", false},
		{httpserve.Hosts{}, "", "localhost:8080", "https://evil.example", false},
		{httpserve.Hosts{}, "", "localhost:8080", "null", false},
		{named, "", "cube.example", "https://evil.example", false},
		{named, "", "cube.example", "https://cube.example", true},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Host = test.host
		if test.at != "" {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(test.at), Port: 8080}))
		}
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		if err := test.hosts.Check(r); (err == nil) != test.ok {
			t.Errorf("host %q at %q, origin %q, %+v: %v", test.host, test.at, test.origin, test.hosts, err)
		}
	}
	called := false
	w, _ := serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }),
		func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") })
	if called || w.Code != 403 || !strings.Contains(w.Body.String(), `"code":"FORBIDDEN"`) {
		t.Errorf("a web page got %d %s", w.Code, w.Body)
	}
	for site, status := range map[string]int{"": 200, "none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403} {
		w, _ := serve(fail(nil), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) })
		if w.Code != status {
			t.Errorf("Sec-Fetch-Site %q got %d, want %d", site, w.Code, status)
		}
	}
	// Two origins, of which one is ours, are not ours.
	w, _ = serve(fail(nil), func(r *http.Request) {
		r.Header.Add("Origin", "http://localhost:8080")
		r.Header.Add("Origin", "https://evil.example")
	})
	if w.Code != 403 {
		t.Errorf("two origins got %d", w.Code)
	}
}

func TestReadJSON(t *testing.T) {
	t.Parallel()
	for body, status := range map[string]int{
		`{"name":"a","more":1}`: 200, ` {} `: 200,
		``: 400, `{`: 400, `{}{}`: 400, `{} x`: 400, `[]`: 400, `{"name":1}`: 400,
		`{"name":"` + strings.Repeat("x", 200) + `"}`: 413,
	} {
		w, _ := serve(httpserve.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			var v struct{ Name string }
			if err := httpserve.ReadJSON(w, r, 100, &v); err != nil {
				return err
			}
			httpserve.WriteJSON(w, 200, v)
			return nil
		}), func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(body)) })
		if w.Code != status {
			t.Errorf("%.20q: %d %s, want %d", body, w.Code, w.Body, status)
		}
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	w, _ := serve(http.HandlerFunc(httpserve.NotFound), nil)
	if w.Code != 404 || w.Body.String() != "404 page not found" || w.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("answer = %d %q %v", w.Code, w.Body, w.Header())
	}
}
