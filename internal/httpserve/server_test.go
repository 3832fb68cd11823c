package httpserve_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpserve"
)

const guard = time.Minute

// run serves h and returns its address, and a function that stops the server
// and waits for Run.
func run(t *testing.T, s *httpserve.Server) (addr string, stop context.CancelFunc, done <-chan error) {
	t.Helper()
	s.Addr = "127.0.0.1:0"
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return s.Address().String(), cancel, ended
}

func get(t *testing.T, c *http.Client, url string) (int, string, error) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: guard}
}

// TestDrain: requests under way finish, new ones are not taken.
func TestDrain(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	draining := make(chan struct{})
	addr, stop, done := run(t, &httpserve.Server{
		DrainTimeout: guard,
		OnDrain:      func() { close(draining) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-release
			_, _ = io.WriteString(w, "finished")
		}),
	})
	answered := make(chan string, 1)
	go func() {
		_, body, err := get(t, client(), "http://"+addr)
		if err != nil {
			body = err.Error()
		}
		answered <- body
	}()
	<-entered
	stop()
	<-draining
	waitRefused(t, addr)
	close(release)
	if body := <-answered; body != "finished" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func waitRefused(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(guard); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		_ = conn.Close()
	}
	t.Fatal("a draining server takes connections")
}

// TestDrainTimeout: a request that does not end is cut off, which is no error.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	addr, stop, done := run(t, &httpserve.Server{
		DrainTimeout: 20 * time.Millisecond,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}),
	})
	answered := make(chan error, 1)
	go func() { _, _, err := get(t, client(), "http://"+addr); answered <- err }()
	<-entered
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the request was answered, want it cut off")
	}
}

// TestHTTP2 speaks HTTP/2 with prior knowledge on plain TCP, as old servers did.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	addr, stop, done := run(t, &httpserve.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	})})
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &p}
	_, proto, err := get(t, &http.Client{Transport: transport, Timeout: guard}, "http://"+addr)
	transport.CloseIdleConnections()
	if err != nil || proto != "HTTP/2.0" {
		t.Errorf("protocol %q, %v", proto, err)
	}
	if _, proto, err := get(t, client(), "http://"+addr); err != nil || proto != "HTTP/1.1" {
		t.Errorf("protocol %q, %v", proto, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	addr, stop, done := run(t, &httpserve.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"status":"alive"}`)
	})})
	second := &httpserve.Server{Addr: addr}
	err := second.Run(t.Context())
	inUse, ok := errors.AsType[*httpserve.AddrInUseError](err)
	if !ok {
		t.Fatalf("Run = %v, want an AddrInUseError", err)
	}
	if inUse.PID != os.Getpid() || inUse.Command == "" || !inUse.AgentCube {
		t.Errorf("holder = %+v, want this process, which answers as AgentCube", inUse)
	}
	if text := err.Error(); !strings.Contains(text, addr) || !strings.Contains(text, "AgentCube is already running") {
		t.Errorf("text = %q", text)
	}
	stop()
	<-done

	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	go func() { // not HTTP
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail\r\n")
			_ = conn.Close()
		}
	}()
	err = (&httpserve.Server{Addr: stranger.Addr().String()}).Run(t.Context())
	if inUse, ok := errors.AsType[*httpserve.AddrInUseError](err); !ok || inUse.AgentCube || inUse.PID != os.Getpid() ||
		!strings.Contains(err.Error(), "by process") {
		t.Errorf("Run = %v, want the stranger's process", err)
	}
}

func TestBadAddress(t *testing.T) {
	t.Parallel()
	if err := (&httpserve.Server{Addr: "nowhere"}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen on nowhere") {
		t.Errorf("Run = %v", err)
	}
}

// A client that is answered before it has sent its whole body must not send
// its next request on the same connection.
func TestEarlyAnswerEndsTheConnection(t *testing.T) {
	handler := httpserve.Middleware{Logger: slog.New(slog.DiscardHandler)}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reads" {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		w.WriteHeader(http.StatusInsufficientStorage)
	}))
	srv := httptest.NewServer(handler)
	defer srv.Close()
	for _, test := range []struct {
		path, body string
		closes     bool
	}{
		{"/early", strings.Repeat("x", 512<<10), true},
		{"/reads", strings.Repeat("x", 512<<10), false},
		{"/early", "", false},
	} {
		resp, err := srv.Client().Post(srv.URL+test.path, "text/plain", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.Close != test.closes {
			t.Errorf("POST %s with %d bytes: the connection ends: %v, want %v", test.path, len(test.body), resp.Close, test.closes)
		}
	}
}
