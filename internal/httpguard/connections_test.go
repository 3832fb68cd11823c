package httpguard

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
)

func TestMain(m *testing.M) { guardtest.Main(m) }

// guard is how long something may take that has to happen at all.
const guard = time.Minute

// serve serves a handler within a bound on connections; they are left alone for
// patience.
func serve(t *testing.T, most int, patience time.Duration, h http.Handler) (*Connections, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := NewConnections(most, "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\r\nfull")
	c.patience = patience
	srv := &http.Server{Handler: c.Wrap(Transfers{}.Wrap(h)), ConnContext: c.Context, ReadHeaderTimeout: guard}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(c.Listener(l)) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return c, l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(guard)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a request on a connection that stays, and returns the status.
func ask(t *testing.T, conn net.Conn) int {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// said is what a server says to a connection before it ends it.
func said(t *testing.T, conn net.Conn) string {
	t.Helper()
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("the connection did not end: %v", err)
	}
	return string(text)
}

// TestNoRoom: who comes too late is told, and those who are there notice nothing.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	_, addr := serve(t, 2, guard, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	first, second := dial(t, addr), dial(t, addr)
	ask(t, first) // both have been accepted once the second is answered
	ask(t, second)
	for range 3 {
		if text := said(t, dial(t, addr)); !strings.HasSuffix(text, "\r\n\r\nfull") {
			t.Errorf("beyond the bound: %q", text)
		}
	}
	if status := ask(t, first); status != 200 {
		t.Errorf("a connection that was there got %d", status)
	}
	_ = second.Close()
	for end := time.Now().Add(guard); ; time.Sleep(time.Millisecond) {
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err == nil {
			if text, err := io.ReadAll(conn); err == nil && strings.HasPrefix(string(text), "HTTP/1.1 200") {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("a connection that was closed takes up room")
		}
	}
}

// TestIdleMakeRoom: connections that do nothing, from a client that opens them by
// the thousand, do not keep others out; those with a request are left alone.
func TestIdleMakeRoom(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	c, addr := serve(t, 4, 0, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Wait") != "" {
			close(entered)
			<-release
		}
	}))
	busy := dial(t, addr)
	if _, err := io.WriteString(busy, "GET / HTTP/1.1\r\nHost: x\r\nWait: yes\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	used := dial(t, addr)
	ask(t, used)
	for range 50 {
		dial(t, addr)
	}
	for range 5 {
		if status := ask(t, dial(t, addr)); status != 200 {
			t.Errorf("a client among many idle ones got %d", status)
		}
	}
	c.mu.Lock()
	if c.count > 4 || c.requests != 1 || c.idle.Len() > 3 {
		t.Errorf("%d connections with %d requests, %d idle", c.count, c.requests, c.idle.Len())
	}
	c.mu.Unlock()
	close(release)
	if text := said(t, busy); !strings.HasPrefix(text, "HTTP/1.1 200") {
		t.Errorf("a connection with a request got %q", text)
	}
}

// TestHijackedCount: a connection that has left the server counts until it is closed.
func TestHijackedCount(t *testing.T) {
	t.Parallel()
	taken, over := make(chan net.Conn, 1), make(chan struct{})
	c, addr := serve(t, 1, 0, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		taken <- conn
		<-over
	}))
	if _, err := io.WriteString(dial(t, addr), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	conn := <-taken
	if text := said(t, dial(t, addr)); !strings.HasSuffix(text, "full") {
		t.Errorf("beyond the bound: %q", text)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	close(over)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count != 0 {
		t.Errorf("%d connections are counted", c.count)
	}
}

// TestRequestsInAll: HTTP/2 does not have more requests under way than there may be
// connections.
func TestRequestsInAll(t *testing.T) {
	t.Parallel()
	c := NewConnections(2, "")
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	on := c.admit(near)
	ctx := c.Context(context.Background(), on.outer())
	entered, release := make(chan struct{}), make(chan struct{})
	h := c.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release }))
	request := (&http.Request{}).WithContext(ctx)
	done := make(chan struct{})
	for range 2 {
		go func() { defer func() { done <- struct{}{} }(); h.ServeHTTP(nil, request) }()
		<-entered
	}
	func() {
		defer func() {
			if p := recover(); p != any(http.ErrAbortHandler) {
				t.Errorf("a third request ended with %v, want it broken off", p)
			}
		}()
		h.ServeHTTP(nil, request)
	}()
	close(release)
	<-done
	<-done
	if c.requests != 0 || c.idle.Len() != 1 {
		t.Errorf("%d requests, %d idle connections are left", c.requests, c.idle.Len())
	}
}
