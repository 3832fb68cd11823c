package httpserve_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// hasty is a pace that is met by nobody who waits on purpose.
var hasty = httpguard.Pace{Window: 100 * time.Millisecond, Bytes: 1 << 20}

// TestSlowHeaders: a client that sends its header a byte at a time is hung up on,
// also with the second request on a connection.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	addr := serveHostile(t, http.HandlerFunc(httpserve.NotFound), httpguard.Pace{}, func(s *httpserve.Server) { s.HeaderTimeout = 100 * time.Millisecond })
	for name, first := range map[string]string{"first": "", "second": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := io.WriteString(conn, first+"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
			for err == nil {
				time.Sleep(10 * time.Millisecond)
				_, err = io.WriteString(conn, "x")
			}
		}()
		if err := conn.SetReadDeadline(time.Now().Add(guard)); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(conn)
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Errorf("%s: the server waits for ever", name)
		}
		if n := strings.Count(string(said), "HTTP/1.1"); n > strings.Count(first, "GET") {
			t.Errorf("%s: answered %q", name, said)
		}
		_ = conn.Close()
		<-done
	}
}

// TestSlowBody: a body that does not get on is answered 408, and that ends it.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	addr := serveHostile(t, httpserve.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		var v map[string]any
		return httpserve.ReadJSON(w, r, 1<<20, &v)
	}), hasty, nil)
	said := guardtest.Talk(t, addr, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	if !strings.HasPrefix(said, "HTTP/1.1 408 ") || !strings.Contains(said, `"code":"REQUEST_TIMEOUT"`) {
		t.Errorf("answered %q", said)
	}
}

// TestManyConnections: those that do nothing do not keep others out.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	addr := serveHostile(t, http.HandlerFunc(httpserve.NotFound), httpguard.Pace{}, func(s *httpserve.Server) { s.MaxConnections = 4 })
	var idle []net.Conn
	defer func() {
		for _, conn := range idle {
			_ = conn.Close()
		}
	}()
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	refused, served := false, false
	for end := time.Now().Add(guard); !served && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		said := guardtest.Talk(t, addr, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		refused = refused || strings.Contains(said, `"code":"SERVER_OVERLOADED"`)
		served = strings.HasPrefix(said, "HTTP/1.1 404 ")
	}
	if !served {
		t.Error("nobody is served beside idle connections")
	}
	if !refused {
		t.Log("no connection had to be refused") // when this machine was too busy
	}
}
