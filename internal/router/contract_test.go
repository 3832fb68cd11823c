package router_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func failure(text, code, extra string) string {
	return `{"error":"` + text + `","code":"` + code + `","message":"` + text + `",` + extra + `"requestId":"test-1","timestamp":"T"}`
}

func blankTimes(body string) string {
	return regexp.MustCompile(`"(timestamp|endedAt)":"[^"]+"`).ReplaceAllString(body, `"$1":"T"`)
}

// TestContractAnswers holds the answers that the Router makes itself to their
// bytes.
func TestContractAnswers(t *testing.T) {
	t.Parallel()
	const unknown = "5b1f1c2e-1111-4222-8333-444444444444"
	notFound := func(id string) string {
		return failure(`sessions.agentcube.volcano.sh \"`+id+`\" not found`, "SESSION_NOT_FOUND", "")
	}
	w := newWorld(t, ok, nil)
	w.create = func(_ auth.Principal, kind, namespace, name string) (session.Session, error) {
		switch name {
		case "missing":
			return session.Session{}, api.Errorf(404, api.CodeTemplateNotFound, "code interpreter not found").WithHint("did you mean x?")
		case "full":
			return session.Session{}, httpserve.Overloaded()
		case "deaf":
			return session.Session{}, api.Errorf(504, api.CodeServerNotListening, "it did not listen").WithHint("it has to")
		}
		return session.Session{}, api.Errorf(504, api.CodeSandboxTimeout, "sandbox creation timed out")
	}
	live := w.add(nil)
	key := w.add(keyBound(t))
	pending := w.add(func(s *session.Session) { s.State = api.StatePending })
	portless := w.add(func(s *session.Session) { s.EntryPoints = []api.EntryPoint{} })
	badPort := w.add(func(s *session.Session) { s.EntryPoints[0].Endpoint = "nowhere" })
	closedPort := w.add(func(s *session.Session) { s.EntryPoints[0].Endpoint = s.SandboxID + ":1" })
	ended := w.add(nil)
	w.end(ended, api.FateIdle)

	const ns = "/v1/namespaces/default/"
	for _, test := range []struct {
		name, method, path, session, token string
		status                             int
		want                               string
		wantSession                        string
	}{
		{"live", "GET", "/health/live", "", "", 200, `{"status":"alive"}`, ""},
		{"ready", "GET", "/health/ready", "", "", 200, `{"status":"ready"}`, ""},
		{"unknown path", "GET", "/v1/namespaces/default/pods/x/invocations/", "", "", 404, "404 page not found", ""},
		{"no invocations", "GET", ns + "code-interpreters/python", "", "", 404, "404 page not found", ""},
		{"HEAD live", "HEAD", "/health/live", "", "", 404, "", ""},
		{"HEAD ready", "HEAD", "/health/ready", "", "", 404, "", ""},
		{"HEAD", "HEAD", base + "/", live.ID, "alice", 404, "", ""},
		{"HEAD without slash", "HEAD", base, live.ID, "alice", 404, "", ""},
		{"two slashes", "GET", "/" + base + "/", live.ID, "alice", 404, "404 page not found", ""},
		{"two slashes within", "GET", "/v1//namespaces/default/code-interpreters/python/invocations/", live.ID, "alice", 404, "404 page not found", ""},
		{"two slashes for the sandbox", "GET", base + "//x", live.ID, "alice", 204, "", live.ID},
		{"dots to elsewhere", "GET", "/v1/namespaces/../sessions", live.ID, "alice", 404, "404 page not found", ""},
		{"empty name", "GET", ns + "code-interpreters//invocations/", live.ID, "alice", 404, "404 page not found", ""},
		{"PUT", "PUT", base + "/", live.ID, "alice", 404, "404 page not found", ""},
		{"DELETE", "DELETE", base + "/", live.ID, "alice", 404, "404 page not found", ""},
		{"GET without slash", "GET", base + "?a=b", live.ID, "alice", 301, "", ""},
		{"POST without slash", "POST", base, live.ID, "alice", 307, "", ""},

		{"unknown session", "GET", base + "/", unknown, "alice", 404, notFound(unknown), ""},
		{"odd session id", "GET", base + "/", `a"b`, "alice", 404, notFound(`a\"b`), ""},
		{"endless session id", "GET", base + "/", strings.Repeat("x", 500), "alice", 404, notFound(strings.Repeat("x", 128)), ""},
		{"other namespace", "GET", "/v1/namespaces/other/code-interpreters/python/invocations/", live.ID, "alice", 404, notFound(live.ID), ""},
		{"other name", "GET", ns + "code-interpreters/other/invocations/", live.ID, "alice", 404, notFound(live.ID), ""},
		{"other kind", "GET", ns + "agent-runtimes/python/invocations/", live.ID, "alice", 404, notFound(live.ID), ""},
		{"other owner", "GET", base + "/", live.ID, "bob", 404, notFound(live.ID), ""},
		{"nobody", "GET", base + "/", live.ID, "", 401, failure("Missing authorization header", "UNAUTHORIZED", ""), ""},
		{"stranger", "GET", base + "/", live.ID, "eve", 401, failure("Invalid or expired token", "UNAUTHORIZED", ""), ""},
		{"owner", "GET", base + "/", live.ID, "alice", 204, "", live.ID},
		{"administrator", "GET", base + "/", live.ID, "root", 404,
			failure(`sessions.agentcube.volcano.sh \"`+live.ID+`\" not found`, "SESSION_NOT_FOUND", `"hint":"`+auth.SeenOnly+`",`), ""},

		{"key-bound without token", "POST", base + "/", key.ID, "", 401,
			`{"error":"Missing Authorization header","code":401,"detail":"the request needs a JWT signed by the session's key","reason":"MISSING_TOKEN","requestId":"test-1"}`, key.ID},
		{"key-bound with the owner's token", "POST", base + "/", key.ID, "alice", 401,
			`{"error":"Invalid token","code":401,"detail":"JWT verification failed: token is malformed: token contains an invalid number of segments","reason":"INVALID_TOKEN","requestId":"test-1"}`, key.ID},
		{"key-bound with another key", "POST", base + "/", key.ID, sdkToken(t, keys().stranger), 401,
			`{"error":"Invalid token","code":401,"detail":"JWT verification failed: token signature is invalid: crypto/rsa: verification error","reason":"INVALID_TOKEN","requestId":"test-1"}`, key.ID},
		{"key-bound", "POST", base + "/", key.ID, sdkToken(t, keys().client), 204, "", key.ID},
		{"key-bound, two words", "POST", base + "/", key.ID, "Bearer a b", 401,
			`{"error":"Invalid Authorization header format","code":401,"detail":"want: Bearer \u003ctoken\u003e","reason":"MALFORMED_TOKEN","requestId":"test-1"}`, key.ID},
		{"path out of the workspace", "GET", base + "/api/files/..%2f..%2fetc", live.ID, "alice", 400,
			`{"error":"Invalid path: path escapes workspace jail","code":400,"reason":"PATH_ESCAPES_WORKSPACE","requestId":"test-1"}`, live.ID},
		{"path out of the workspace, key-bound", "GET", base + "/api/files/../x", key.ID, sdkToken(t, keys().client), 400,
			`{"error":"Invalid path: path escapes workspace jail","code":400,"reason":"PATH_ESCAPES_WORKSPACE","requestId":"test-1"}`, key.ID},

		{"pending", "GET", base + "/", pending.ID, "alice", 409, failure("the session is still being created", "SESSION_NOT_READY", ""), pending.ID},
		{"ended", "GET", base + "/", ended.ID, "alice", 410,
			`{"error":"session \"` + ended.ID + `\" has ended: idle","code":"SESSION_ENDED","message":"session \"` + ended.ID +
				`\" has ended: idle","hint":"because","requestId":"test-1","timestamp":"T","fate":"idle","endedAt":"T"}`, ended.ID},
		{"ended, other owner", "GET", base + "/", ended.ID, "bob", 404, notFound(ended.ID), ""},
		{"no entry point", "GET", base + "/", portless.ID, "alice", 404, failure("no entry point found for sandbox", "NO_ENTRY_POINT", ""), portless.ID},
		{"bad entry point", "GET", base + "/", badPort.ID, "alice", 404, failure("entry point of the sandbox is not valid", "NO_ENTRY_POINT", ""), badPort.ID},
		{"nothing listens", "GET", base + "/", closedPort.ID, "alice", 502, failure("sandbox unreachable", "SANDBOX_UNREACHABLE", ""), closedPort.ID},

		{"no session, nobody", "GET", base + "/", "", "", 401, failure("Missing authorization header", "UNAUTHORIZED", ""), ""},
		{"no session, unknown template", "GET", ns + "code-interpreters/missing/invocations/", "", "alice", 404,
			failure(`codeinterpreters.agentcube.volcano.sh \"default/missing\" not found`, "TEMPLATE_NOT_FOUND", `"hint":"did you mean x?",`), ""},
		{"no session, unknown agent", "GET", ns + "agent-runtimes/missing/invocations/", "", "alice", 404,
			failure(`agentruntimes.agentcube.volcano.sh \"default/missing\" not found`, "TEMPLATE_NOT_FOUND", `"hint":"did you mean x?",`), ""},
		{"no session, no room", "GET", ns + "code-interpreters/full/invocations/", "", "alice", 429,
			failure("server overloaded, please try again later", "SERVER_OVERLOADED", ""), ""},
		{"no session, its server does not listen", "GET", ns + "agent-runtimes/deaf/invocations/", "", "alice", 504,
			failure("it did not listen", "SERVER_NOT_LISTENING", `"hint":"it has to",`), ""},
		{"no session, creation fails", "GET", base + "/", "", "alice", 500, failure("internal server error", "SANDBOX_TIMEOUT", ""), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := []string{"X-Agentcube-Session-Id", test.session}
			if test.token != "" {
				header = append(header, "Authorization", test.token)
			}
			got := w.do(test.method, test.path, "", header...)
			if body := blankTimes(got.body); got.status != test.status || body != test.want {
				t.Errorf("answer = %d %s\nwant     %d %s", got.status, body, test.status, test.want)
			}
			if id := got.header.Get("X-Agentcube-Session-Id"); id != test.wantSession {
				t.Errorf("session header = %q, want %q", id, test.wantSession)
			}
			if wait := got.header.Get("Retry-After"); (wait != "") != (test.status == 429 || test.status == 409) {
				t.Errorf("status %d with Retry-After %q", test.status, wait)
			}
		})
	}
	if got := w.do("GET", base+"?a=b%20c", ""); got.header.Get("Location") != base+"/?a=b%20c" {
		t.Errorf("Location = %q", got.header.Get("Location"))
	}
}

func TestOwns(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/health/live": true, "/health/ready": true, "/health": false, "//health/live": false, "/": false, "": false, "*": false,
		"/v1/namespaces/": true, "/v1/namespaces/../sessions": true, "/v1/namespaces": false, "/v1/namespacesx/": false,
		"//v1/namespaces/d/x": true, "/v1//namespaces/d": true, "/v1/./namespaces/d": true, "/v1/sessions/../namespaces/d": true,
		"v1/namespaces/d": true, "/v1/sessions": false, "/v1/sessions/v1/namespaces/": false,
	} {
		if got := router.Owns(path); got != want {
			t.Errorf("Owns(%q) = %t, want %t", path, got, want)
		}
	}
}

// TestSigningFails: it is told from other failures of ours.
func TestSigningFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, func(_ *world, c *router.Config) {
		toy := rsa.PublicKey{N: big.NewInt(3233), E: 17} // too small to sign anything with
		c.SigningKey = &rsa.PrivateKey{PublicKey: toy, D: big.NewInt(413), Primes: []*big.Int{big.NewInt(61), big.NewInt(53)}}
	})
	rec := w.add(nil)
	got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	want := failure("the request could not be signed", "JWT_SIGNING_FAILED", "")
	if body := blankTimes(got.body); got.status != 500 || body != want || got.header.Get("X-Agentcube-Session-Id") != rec.ID {
		t.Errorf("answer = %d %s, want 500 %s", got.status, body, want)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		want   string
	}{
		{sandbox.ErrRefused, 502, failure("sandbox unreachable", "SANDBOX_UNREACHABLE", "")},
		{context.DeadlineExceeded, 504, failure("sandbox timeout", "SANDBOX_TIMEOUT", "")},
		{&net.DNSError{IsTimeout: true}, 504, failure("sandbox timeout", "SANDBOX_TIMEOUT", "")},
		{sandbox.ErrNotRunning, 503, failure("sandbox unreachable", "SANDBOX_UNREACHABLE", "")},
		{errors.New("odd"), 503, failure("sandbox unreachable", "SANDBOX_UNREACHABLE", "")},
	} {
		w := newWorld(t, ok, func(_ *world, c *router.Config) { c.Dialer = refuser{fmt.Errorf("dial: %w", test.err)} })
		rec := w.add(nil)
		got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
		if body := blankTimes(got.body); got.status != test.status || body != test.want {
			t.Errorf("%v: answer = %d %s, want %d %s", test.err, got.status, body, test.status, test.want)
		}
		if got.header.Get("X-Agentcube-Session-Id") != rec.ID {
			t.Errorf("%v: no session header", test.err)
		}
	}
}

// brokenStore is a store that is away.
type brokenStore struct{ router.Sessions }

func (brokenStore) Ping(context.Context) error { return session.ErrUnavailable }
func (brokenStore) Get(context.Context, string) (session.Session, error) {
	return session.Session{}, session.ErrUnavailable
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, func(_ *world, c *router.Config) { c.Sessions = brokenStore{c.Sessions} })
	got := w.do("GET", "/health/ready", "")
	if got.status != 503 || got.body != `{"error":"session manager not available","status":"not ready"}` {
		t.Errorf("ready = %d %s", got.status, got.body)
	}
	if got := w.do("GET", "/health/live", ""); got.status != 200 {
		t.Errorf("live = %d", got.status)
	}
	got = w.do("GET", base+"/", "", "X-Agentcube-Session-Id", "x", "Authorization", "alice")
	if want := failure("internal server error", "STORE_SANDBOX_FAILED", ""); got.status != 500 || blankTimes(got.body) != want {
		t.Errorf("invocation = %d %s", got.status, got.body)
	}
}

func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release },
		func(_ *world, c *router.Config) { c.MaxConcurrent = 1 })
	rec := w.add(nil)
	header := []string{"X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"}
	first := make(chan answer)
	go func() { first <- w.do("GET", base+"/", "", header...) }()
	<-entered
	got := w.do("GET", base+"/", "", header...)
	if got.status != 429 || got.header.Get("Retry-After") != "1" ||
		blankTimes(got.body) != failure("server overloaded, please try again later", "SERVER_OVERLOADED", "") {
		t.Errorf("second request = %d %s", got.status, got.body)
	}
	if got := w.do("GET", "/health/live", ""); got.status != 200 {
		t.Errorf("health at the limit = %d", got.status)
	}
	close(release)
	if got := <-first; got.status != 200 {
		t.Errorf("first request = %d", got.status)
	}
	go func() { <-entered }()
	if got := w.do("GET", base+"/", "", header...); got.status != 200 {
		t.Errorf("third request = %d", got.status)
	}
}

// TestCreatesSession: no session header makes a session of the caller.
func TestCreatesSession(t *testing.T) {
	t.Parallel()
	var asked []string
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }, nil)
	var rec session.Session
	w.create = func(owner auth.Principal, kind, namespace, name string) (session.Session, error) {
		asked = append(asked, owner.Name, kind, namespace, name)
		return rec, nil
	}
	rec = w.add(func(s *session.Session) { s.Kind = api.KindAgentRuntime })
	got := w.do("GET", "/v1/namespaces/default/agent-runtimes/python/invocations/", "", "Authorization", "alice")
	if got.status != http.StatusTeapot || got.header.Get("X-Agentcube-Session-Id") != rec.ID {
		t.Errorf("answer = %d, session %q, want the sandbox's and %q", got.status, got.header.Get("X-Agentcube-Session-Id"), rec.ID)
	}
	if want := "alice AgentRuntime default python"; strings.Join(asked, " ") != want {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	// A path that leads out of the workspace does so in a new session too.
	rec = w.add(nil)
	if got := w.do("GET", base+"/api/files/../execute", "", "Authorization", "alice"); got.status != 400 || got.header.Get("X-Agentcube-Session-Id") != rec.ID {
		t.Errorf("answer = %d %s, want 400 and the session", got.status, got.body)
	}
	// A session that was made, but cannot be used, is named all the same (W-R6).
	rec = w.add(func(s *session.Session) { s.EntryPoints[0].Endpoint = s.SandboxID + ":1" })
	got = w.do("GET", base+"/", "", "Authorization", "alice")
	if got.status != 502 || got.header.Get("X-Agentcube-Session-Id") != rec.ID {
		t.Errorf("answer = %d, session %q, want 502 and %q", got.status, got.header.Get("X-Agentcube-Session-Id"), rec.ID)
	}
}

// TestActivityCounts: requests of the owner, while they last, and nobody
// else's, keep a session from idling.
func TestActivityCounts(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release }, nil)
	bind := keyBound(t)
	rec := w.add(func(s *session.Session) { bind(s); s.IdleTimeout = 300 * time.Millisecond })
	start := w.lastActivity(rec.ID)
	w.do("POST", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", sdkToken(t, keys().stranger))
	if at := w.lastActivity(rec.ID); !at.Equal(start) {
		t.Errorf("a stranger's request moved the last activity from %v to %v", start, at)
	}
	done := make(chan answer)
	go func() {
		done <- w.do("POST", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", sdkToken(t, keys().client))
	}()
	<-entered
	began := w.lastActivity(rec.ID)
	if !began.After(start) {
		t.Error("the beginning of a request is no activity")
	}
	w.eventually("heartbeats", func() bool { return w.lastActivity(rec.ID).Sub(began) > 2*rec.IdleTimeout })
	released := time.Now()
	time.Sleep(rec.IdleTimeout / 10) // longer than activity may lag
	close(release)
	<-done
	w.eventually("the end of the request noted", func() bool { return w.lastActivity(rec.ID).After(released) })
	last := w.lastActivity(rec.ID)
	time.Sleep(rec.IdleTimeout)
	if at := w.lastActivity(rec.ID); !at.Equal(last) {
		t.Errorf("activity went on for %v after the last request", at.Sub(last))
	}
}
