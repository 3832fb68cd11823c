package httpserve_test

import (
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
)

// witness is a handler that keeps what it got.
type witness struct {
	mu   sync.Mutex
	seen []guardtest.Seen
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		httpserve.WriteError(rw, r, err)
		return
	case r.URL.Path == "/judged" && r.Method == http.MethodPost:
	case r.URL.Path == "/smuggled":
	default:
		httpserve.NotFound(rw, r)
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

// serveHostile is a listener for clients that mean no good.
func serveHostile(t *testing.T, h http.Handler, pace httpguard.Pace, set func(*httpserve.Server)) string {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	s := &httpserve.Server{Logger: logger, Handler: httpserve.Middleware{Logger: logger, Pace: pace}.Wrap(h), DrainTimeout: time.Millisecond}
	if set != nil {
		set(s)
	}
	addr, stop, done := run(t, s)
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return addr
}

// TestHostileRequests: what nobody should send is answered once, or not at all.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	w := &witness{}
	addr := serveHostile(t, w, httpguard.Pace{}, nil)
	guardtest.Run(t, guardtest.Target{Addr: addr, Path: "/judged", Behind: "/judged", Status: 200, Seen: w.take, Trailers: true})
}

// TestAbsoluteForm: the host of a request is the one in its target, whatever the
// header says.
func TestAbsoluteForm(t *testing.T) {
	t.Parallel()
	w := &witness{}
	addr := serveHostile(t, w, httpguard.Pace{}, nil)
	for target, want := range map[string]int{
		"http://" + addr + "/judged": 200, "http://evil.example/judged": 403, "http://evil.example@" + addr + "/judged": 200,
		"http://" + addr + "@evil.example/judged": 403, "https://evil.example:80/judged": 403, "//evil.example/judged": 404, "file:///judged": 200,
	} {
		said := guardtest.Talk(t, addr, "POST "+target+" HTTP/1.1\r\nHost: "+addr+"\r\nConnection: close\r\n\r\n")
		if got := guardtest.Statuses(t, said); len(got) != 1 || got[0] != want {
			t.Errorf("%s got %v, want %d", target, got, want)
		}
	}
}

// TestPipelining: requests that are sent at once are answered in their order, each
// once.
func TestPipelining(t *testing.T) {
	t.Parallel()
	w := &witness{}
	addr := serveHostile(t, w, httpguard.Pace{}, nil)
	one := "POST /judged HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
	said := guardtest.Talk(t, addr, one+"\r\na"+"POST /lost HTTP/1.1\r\nHost: localhost\r\n\r\n"+one+"\r\nb"+one+"Connection: close\r\n\r\nc"+one+"\r\nd")
	if got := guardtest.Statuses(t, said); len(got) != 4 || got[0] != 200 || got[1] != 404 || got[2] != 200 || got[3] != 200 {
		t.Errorf("answered %v", got)
	}
	var bodies strings.Builder
	for _, s := range w.take() {
		bodies.WriteString(s.Body)
	}
	if bodies.String() != "abc" {
		t.Errorf("handled %q, want abc", bodies.String())
	}
}
