package router_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// seen is what a request looked like in the sandbox.
type seen struct {
	Method, Path, RawQuery, Host, Body string
	Header                             http.Header
}

func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Host, string(body), r.Header})
}

func (w *world) mirrored(method, path, body string, header ...string) seen {
	w.t.Helper()
	got := w.do(method, path, body, header...)
	var out seen
	if err := json.Unmarshal([]byte(got.body), &out); err != nil {
		w.t.Fatalf("%s %s = %d %s", method, path, got.status, got.body)
	}
	return out
}

func TestForwards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirror, nil)
	rec := w.add(nil)
	for _, test := range []struct{ path, want, query string }{
		{"/", "/", ""},
		{"/api/execute", "/api/execute", ""},
		{"/api/files?path=.&x=%2F;y", "/api/files", "path=.&x=%2F;y"},
		{"/api/files/a%20b%23c%3Fd", "/api/files/a b#c?d", ""},
		{"/a%2Fb", "/a/b", ""},
		{"/100%25", "/100%", ""},
		{"/%252e%252e/x", "/%2e%2e/x", ""},
		{"/a//b/", "/a//b/", ""},
		{"/a/./b/../c", "/a/c", ""},
		{"/a/%2e%2e/%2E%2E/%2e%2e/etc/passwd", "/etc/passwd", ""},
		{"/a/b/..", "/a/", ""},
		{"/..%2f..%2fadmin", "/admin", ""},
		{"/.hidden/...", "/.hidden/...", ""},
		{"/%E2%82%AC", "/€", ""},
	} {
		got := w.mirrored("POST", base+test.path, "body", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
		if got.Path != test.want || got.RawQuery != test.query || got.Body != "body" || got.Method != "POST" {
			t.Errorf("%s arrived as %+v, want path %q and query %q", test.path, got, test.want, test.query)
		}
	}
}

// TestFilesDoNotLeaveTheWorkspace: without an answer of the Router's own, PicoD
// would be asked for something else than files, and not say why it has nothing.
func TestFilesDoNotLeaveTheWorkspace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirror, nil)
	rec := w.add(nil)
	none := w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	for path, want := range map[string]int{
		"/api/files/%2E%2E/x": 400, "/api/files/a/../../execute": 400, "/api/files/..": 400, "/api/files/%2e%2e%2fx": 400,
		"/api/files/a/../x": 200, "/api/files/../files/x": 200, "/api/files/..x": 200, "/other/../x": 200,
	} {
		got := w.do("GET", base+path, "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
		if got.status != want || want == 400 && !strings.Contains(got.body, "escapes workspace jail") {
			t.Errorf("%s = %d %s, want %d", path, got.status, got.body, want)
		}
		// A server of one's own may mean what it likes by it.
		if got := w.do("GET", base+path, "", "X-Agentcube-Session-Id", none.ID, "Authorization", "alice"); got.status != 200 {
			t.Errorf("%s of a session without PicoD = %d %s", path, got.status, got.body)
		}
	}
}

func TestForwardedHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirror, nil)
	rec := w.add(nil)
	got := w.mirrored("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice",
		"X-Forwarded-For", "1.2.3.4", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "gopher", "Forwarded", "for=1.2.3.4",
		"Connection", "X-Hop", "X-Hop", "1", "Accept-Encoding", "br", "X-Custom", "kept")
	if got.Host != "s-"+rec.ID+":8080" {
		t.Errorf("Host = %q", got.Host)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": strings.TrimPrefix(w.url, "http://"), "X-Forwarded-Proto": "http",
		"Forwarded": "", "X-Hop": "", "Accept-Encoding": "br", "X-Custom": "kept", "X-Agentcube-Session-Id": rec.ID,
	} {
		if v := strings.Join(got.Header.Values(name), ","); v != want {
			t.Errorf("%s arrived as %q, want %q", name, v, want)
		}
	}
}

// TestRequestIDReachesSandbox: also one that was made here.
func TestRequestIDReachesSandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirror, nil)
	rec := w.add(nil)
	for _, sent := range []string{"mine", "", "not sane"} {
		got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice", "X-Request-Id", sent)
		var arrived seen
		if err := json.Unmarshal([]byte(got.body), &arrived); err != nil {
			t.Fatal(err)
		}
		id := got.header.Get("X-Request-Id")
		if id == "" || arrived.Header.Get("X-Request-Id") != id || (sent == "mine") != (id == sent) {
			t.Errorf("sent %q: the sandbox saw %q, the answer says %q", sent, arrived.Header.Get("X-Request-Id"), id)
		}
	}
}

// TestAuthorization: who signs what reaches the sandbox (section 6).
func TestAuthorization(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirror, nil)

	bound := w.add(keyBound(t))
	token := sdkToken(t, keys().client)
	got := w.mirrored("POST", base+"/", "", "X-Agentcube-Session-Id", bound.ID, "Authorization", token)
	if got.Header.Get("Authorization") != "Bearer "+token {
		t.Error("the SDK's token did not arrive untouched")
	}

	managed := w.add(nil)
	got = w.mirrored("POST", base+"/", "", "X-Agentcube-Session-Id", managed.ID, "Authorization", "alice")
	claims := jwt.MapClaims{}
	signed := strings.TrimPrefix(got.Header.Get("Authorization"), "Bearer ")
	if _, err := jwt.ParseWithClaims(signed, claims, func(*jwt.Token) (any, error) { return &keys().router.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired()); err != nil {
		t.Errorf("the Router's token: %v", err)
	}
	if claims["iss"] != "agentcube-router" || claims["session_id"] != managed.ID || claims["jti"] == "" {
		t.Errorf("claims = %v", claims)
	}

	open := w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	got = w.mirrored("POST", base+"/", "", "X-Agentcube-Session-Id", open.ID, "Authorization", "alice")
	if v, there := got.Header["Authorization"]; there {
		t.Errorf("a sandbox that checks nothing got Authorization %q", v)
	}
}

func TestEntryPoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirror, nil)
	rec := w.add(func(s *session.Session) {
		s.EntryPoints = []api.EntryPoint{
			{Path: "/api", Protocol: "HTTP", Endpoint: s.SandboxID + ":8080"},
			{Path: "/api/v2/", Protocol: "HTTP", Endpoint: "http://" + s.SandboxID + ":9000"},
		}
	})
	for path, port9000 := range map[string]bool{
		"/api": false, "/api/v2": true, "/api/v2/x": true, "/api/v20": false, "/api/v2/../x": false, "/other": false, "/x/../api/v2/": true,
	} {
		got := w.do("GET", base+path, "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
		if (got.body == "port 9000") != port9000 {
			t.Errorf("%s went to %q", path, got.body)
		}
	}
}

// TestAnswersUnchanged: status, headers and bytes of the sandbox's answer pass,
// except for the headers that are the Router's.
func TestAnswersUnchanged(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, "text")
	_ = z.Close()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		h := rw.Header()
		h.Set("Content-Encoding", "gzip")
		h.Set("X-Agentcube-Session-Id", "forged")
		h.Set("X-Request-Id", "forged")
		h.Set("Content-Disposition", `attachment; filename="a"`)
		rw.WriteHeader(http.StatusNotFound)
		_, _ = rw.Write(packed.Bytes())
	}, nil)
	rec := w.add(nil)
	got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice", "Accept-Encoding", "gzip")
	if got.status != 404 || got.body != packed.String() || got.header.Get("Content-Encoding") != "gzip" ||
		got.header.Get("Content-Disposition") != `attachment; filename="a"` {
		t.Errorf("answer = %d %v", got.status, got.header)
	}
	for name, want := range map[string]string{"X-Agentcube-Session-Id": rec.ID, "X-Request-Id": "test-1"} {
		if v := got.header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s = %q, want %q once", name, v, want)
		}
	}
}

// TestStreams: what one side has sent, the other has, before either is done.
func TestStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintf(rw, "got %s\n", lines.Text())
			_ = http.NewResponseController(rw).Flush()
		}
	}, nil)
	rec := w.add(nil)
	out, in := io.Pipe()
	defer in.Close()
	go func() { _, _ = io.WriteString(in, "one\n") }()
	resp, err := w.send(t.Context(), "POST", base+"/", out, "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answers := bufio.NewReader(resp.Body)
	for _, word := range []string{"one", "two", "three"} {
		if line, err := answers.ReadString('\n'); err != nil || line != "got "+word+"\n" {
			t.Fatalf("read %q, %v, want %q", line, err, word)
		}
		next := map[string]string{"one": "two\n", "two": "three\n"}[word]
		if _, err := io.WriteString(in, next); err != nil {
			t.Fatal(err)
		}
	}
	_ = in.Close()
	if rest, err := io.ReadAll(answers); err != nil || len(rest) != 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex()
		_, _ = io.Copy(rw, r.Body)
	}, nil)
	rec := w.add(nil)
	body := strings.Repeat("0123456789abcdef", 1<<19) // 8 MiB
	got := w.do("POST", base+"/", body, "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	if got.status != 200 || got.body != body {
		t.Errorf("answer = %d with %d bytes, want %d unchanged", got.status, len(got.body), len(body))
	}
}

// TestUpgrade: a connection that changes its protocol passes both ways.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buf.Flush()
		line, _ := buf.ReadString('\n')
		_, _ = buf.WriteString("echo " + line)
		_ = buf.Flush()
	}, nil)
	rec := w.add(nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET %s/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+
		"Authorization: Bearer alice\r\nX-Agentcube-Session-Id: %s\r\n\r\n", base, rec.ID)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("X-Agentcube-Session-Id") != rec.ID {
		t.Fatalf("upgrade = %+v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	a, b := w.add(nil), w.add(nil)
	for range 5 {
		w.do("GET", base+"/", "", "X-Agentcube-Session-Id", a.ID, "Authorization", "alice")
		w.do("POST", base+"/", "x", "X-Agentcube-Session-Id", b.ID, "Authorization", "alice")
	}
	if n := w.dials.Load(); n != 2 {
		t.Errorf("%d connections for two sessions, want 2", n)
	}
}

// TestClientGone: the sandbox notices when the client leaves.
func TestClientGone(t *testing.T) {
	t.Parallel()
	entered, left := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	}, nil)
	rec := w.add(nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := w.send(ctx, "GET", base+"/", nil, "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"); err == nil {
		t.Error("the request of a client that left was answered")
	}
	<-left
}

// TestSessionEndsUnderWay: the end of a session cuts its requests, and the next
// one hears of it.
func TestSessionEndsUnderWay(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "begun")
		_ = http.NewResponseController(rw).Flush()
		close(entered)
		<-r.Context().Done()
	}, nil)
	rec := w.add(nil)
	header := []string{"X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"}
	resp, err := w.send(t.Context(), "GET", base+"/", nil, header...)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-entered
	w.end(rec, api.FateExpired)
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("an answer that broke off looks whole: %q", body)
	}
	if got := w.do("GET", base+"/", "", header...); got.status != 410 || !strings.Contains(got.body, `"fate":"expired"`) {
		t.Errorf("next request = %d %s", got.status, got.body)
	}
}

// TestEndUnnoticed: the Router learns of an end that nobody told it of when
// the sandbox is gone.
func TestEndUnnoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	rec := w.add(nil)
	header := []string{"X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"}
	if got := w.do("GET", base+"/", "", header...); got.status != 204 {
		t.Fatalf("request = %d", got.status)
	}
	if _, err := w.store.Update(t.Context(), rec.ID, func(s *session.Session) error {
		s.State, s.Fate = api.StateEnded, api.FateOutOfMemory
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.host.Lose(rec.SandboxID)
	for range 2 {
		if got := w.do("GET", base+"/", "", header...); got.status != 410 || !strings.Contains(got.body, `"fate":"out-of-memory"`) {
			t.Errorf("request = %d %s", got.status, got.body)
		}
	}
}

// TestOutOfMemoryUnderWay: the request that killed its sandbox hears of it, though
// the news comes a little after the connection broke off.
func TestOutOfMemoryUnderWay(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}, func(_ *world, c *router.Config) { c.ExitGrace = guard })
	rec := w.add(nil)
	var killer sync.WaitGroup
	defer killer.Wait()
	killer.Go(func() {
		<-entered
		if err := w.host.Exit(rec.SandboxID, sandbox.ExitOutOfMemory, ""); err != nil {
			t.Error(err)
		}
		w.end(rec, api.FateOutOfMemory)
	})
	got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	if got.status != 410 || !strings.Contains(got.body, `"fate":"out-of-memory"`) {
		t.Errorf("request = %d %s", got.status, got.body)
	}
}

// TestEndWhileLookingUp: a session that ends between the reading of its record
// and its use is not remembered as running.
func TestEndWhileLookingUp(t *testing.T) {
	t.Parallel()
	late := &lateSessions{}
	w := newWorld(t, ok, func(_ *world, c *router.Config) {
		late.Sessions = c.Sessions
		c.Sessions = late
	})
	rec := w.add(nil)
	late.between = func() { w.end(rec, api.FateDeleted) }
	got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice")
	if got.status != 410 {
		t.Errorf("request = %d %s, want 410", got.status, got.body)
	}
	if n := w.dials.Load(); n != 0 {
		t.Errorf("the sandbox of an ended session was dialled %d times", n)
	}
}

// lateSessions lets something happen between the first reading of a record
// and its delivery.
type lateSessions struct {
	router.Sessions
	once    sync.Once
	between func()
}

func (l *lateSessions) Get(ctx context.Context, id string) (session.Session, error) {
	rec, err := l.Sessions.Get(ctx, id)
	l.once.Do(l.between)
	return rec, err
}
