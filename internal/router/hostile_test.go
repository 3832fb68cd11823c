package router_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// witness is a server in a sandbox that keeps what it got.
type witness struct {
	mu   sync.Mutex
	seen []guardtest.Seen
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(rw, "broken", http.StatusTeapot)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, guardtest.Seen{Method: r.Method, Path: r.URL.Path, Body: string(body), Header: r.Header, Trailer: r.Trailer})
}

func (w *witness) take() []guardtest.Seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// listen serves the Router as `agentcube up` does.
func (w *world) listen(pace httpguard.Pace) (addr string) {
	w.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	srv := &httpserve.Server{Addr: "127.0.0.1:0", Logger: logger, MaxConnections: 100, DrainTimeout: time.Millisecond,
		Handler: httpserve.Middleware{Logger: logger, Pace: pace}.Wrap(w.router)}
	if err := srv.Listen(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return srv.Address().String()
}

// TestHostileRequests: of what nobody should send the sandbox gets what the Router
// has judged, once, or nothing.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	app := &witness{}
	w := newWorld(t, app.ServeHTTP, nil)
	addr := w.listen(httpguard.Pace{})
	for name, kind := range map[string]struct {
		set   func(*session.Session)
		token string
	}{"managed": {nil, "alice"}, "key-bound": {keyBound(t), sdkToken(t, keys().client)}} {
		rec := w.add(kind.set)
		t.Run(name, func(t *testing.T) {
			guardtest.Run(t, guardtest.Target{
				Addr: addr, Path: base + "/judged", Behind: "/judged", Status: 200, Seen: app.take,
				Header: "X-Agentcube-Session-Id: " + rec.ID + "\r\nAuthorization: Bearer " + kind.token + "\r\n",
			})
		})
	}
}

// TestBrokenBodies: who sends a body that cannot be read hears of it, and the
// sandbox is not blamed.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	app := &witness{}
	w := newWorld(t, app.ServeHTTP, nil)
	rec := w.add(nil)
	post := "POST " + base + "/ HTTP/1.1\r\nHost: localhost\r\nX-Agentcube-Session-Id: " + rec.ID + "\r\nAuthorization: Bearer alice\r\n"
	for name, test := range map[string]struct {
		pace httpguard.Pace
		text string
		code string
	}{
		"not chunks": {httpguard.Pace{}, post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX", `"INVALID_REQUEST"`},
		"stalled":    {httpguard.Pace{Window: 50 * time.Millisecond, Bytes: 1 << 20}, post + "Content-Length: 10\r\n\r\nhello", `"REQUEST_TIMEOUT"`},
	} {
		said := guardtest.Talk(t, w.listen(test.pace), test.text)
		if !strings.Contains(said, test.code) {
			t.Errorf("%s: answered %q, want %s", name, said, test.code)
		}
	}
	if seen := app.take(); len(seen) > 0 {
		t.Errorf("the sandbox took %+v for whole", seen)
	}
}

// TestHeadersTwice: where a header decides, there is one.
func TestHeadersTwice(t *testing.T) {
	t.Parallel()
	app := &witness{}
	w := newWorld(t, app.ServeHTTP, nil)
	addr := w.listen(httpguard.Pace{})
	managed, bound := w.add(nil), w.add(keyBound(t))
	good := "Authorization: Bearer " + sdkToken(t, keys().client) + "\r\n"
	for name, test := range map[string]struct {
		lines string
		want  int
	}{
		"two sessions":          {"X-Agentcube-Session-Id: " + bound.ID + "\r\nX-Agentcube-Session-Id: " + managed.ID + "\r\n" + good, 400},
		"a session and none":    {"X-Agentcube-Session-Id: \r\nX-Agentcube-Session-Id: " + managed.ID + "\r\nAuthorization: Bearer alice\r\n", 400},
		"two tokens":            {"X-Agentcube-Session-Id: " + bound.ID + "\r\n" + good + "Authorization: Bearer x\r\n", 401},
		"none and a token":      {"X-Agentcube-Session-Id: " + bound.ID + "\r\nAuthorization: \r\n" + good, 401},
		"token not passed on":   {"X-Agentcube-Session-Id: " + managed.ID + "\r\nAuthorization: Bearer alice\r\n", 200},
		"one token, key-bound":  {"X-Agentcube-Session-Id: " + bound.ID + "\r\n" + good, 200},
		"managed, hop by hop":   {"X-Agentcube-Session-Id: " + managed.ID + "\r\nAuthorization: Bearer alice\r\nConnection: close, authorization, x-forwarded-for\r\n", 200},
		"hop by hop, key-bound": {"X-Agentcube-Session-Id: " + bound.ID + "\r\n" + good + "Connection: close, x-request-id\r\n", 200},
	} {
		said := guardtest.Talk(t, addr, "GET "+base+"/judged HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+test.lines+"\r\n")
		if got := guardtest.Statuses(t, said); len(got) != 1 || got[0] != test.want {
			t.Errorf("%s: answered %v, want %d", name, got, test.want)
		}
		for _, s := range app.take() {
			token := s.Header["Authorization"]
			if test.want != 200 || len(token) != 1 || strings.Contains(token[0], "alice") || len(s.Header["X-Request-Id"]) != 1 || len(s.Header["X-Forwarded-For"]) != 1 {
				t.Errorf("%s: the sandbox got %v", name, s.Header)
			}
		}
	}
}
