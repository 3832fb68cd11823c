// Package guardtest has requests that nobody should send, which every listener has
// to answer once, or not at all, and then hang up: whoever is in between must not
// take a part of one for a request of its own.
package guardtest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package that serves HTTP, and fails when goroutines are left.
// net/http lingers half a second on a connection that it hangs up on, which is longer
// than goleak waits.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// guard is how long a conversation may take that has to end at all.
const guard = time.Minute

// Seen is a request as the handler behind a listener got it.
type Seen struct {
	Method, Path, Body string
	Header             http.Header
	Trailer            http.Header
}

// Target is a listener, and a request that it serves.
type Target struct {
	Addr string
	// Path is that of a POST that the handler answers whatever its body is.
	Path string
	// Header are lines, each with CRLF, that the request needs.
	Header string
	// Status is what such a request is answered.
	Status int
	// Behind is Path as the handler sees it.
	Behind string
	// Seen returns what the handler got, body and all, since it was last called; nil
	// where nobody looks.
	Seen func() []Seen
	// Trailers: the handler may get what comes after a body.
	Trailers bool
}

// Talk sends bytes to a server and returns what it answers until it hangs up.
func Talk(t testing.TB, addr, text string) string {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(guard)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, text) // it may hang up before it has all
	}()
	var got bytes.Buffer
	_, err = io.Copy(&got, conn)
	_ = conn.Close()
	<-sent
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Fatalf("the server neither answers nor hangs up; it said %q", clip(got.String()))
	}
	return got.String()
}

// Statuses are those of the answers in what a server said.
func Statuses(t testing.TB, said string) []int {
	t.Helper()
	var out []int
	for in := bufio.NewReader(strings.NewReader(said)); ; {
		if _, err := in.Peek(1); err != nil {
			return out
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("the server does not speak HTTP: %v in %q", err, clip(said))
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatalf("an answer is cut off: %v in %q", err, clip(said))
		}
		out = append(out, resp.StatusCode)
	}
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

// Run sends all of them.
func Run(t *testing.T, to Target) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, to) })
	}
}

func (c hostile) run(t *testing.T, to Target) {
	text := strings.NewReplacer("{PATH}", to.Path, "{HOST}", to.Addr, "{AUTH}", to.Header).Replace(c.text)
	if to.Seen != nil {
		to.Seen()
	}
	statuses := Statuses(t, Talk(t, to.Addr, text+
		"GET /smuggled HTTP/1.1\r\nHost: "+to.Addr+"\r\nConnection: close\r\n\r\n"))
	if len(statuses) > 1 {
		t.Errorf("answered %v: what follows was taken for a request of its own", statuses)
	}
	for _, status := range statuses {
		if status < 400 && c.refused || status != to.Status && !c.refused {
			t.Errorf("answered %d", status)
		}
	}
	if to.Seen == nil {
		return
	}
	seen := to.Seen()
	switch {
	case c.refused && len(seen) > 0:
		t.Errorf("the handler got %+v, want nothing", seen)
	case len(seen) > 1:
		t.Errorf("the handler got %d requests: %+v", len(seen), seen)
	case !c.refused && len(seen) == 0:
		t.Errorf("answered %v, and the handler got nothing", statuses)
	}
	for _, s := range seen {
		c.judge(t, to, s)
	}
}

// judge checks that what arrived is what was judged.
func (c hostile) judge(t *testing.T, to Target, s Seen) {
	if s.Method != http.MethodPost || s.Path != to.Behind {
		t.Errorf("the handler got %s %s, want POST %s", s.Method, s.Path, to.Behind)
	}
	if s.Body != c.body {
		t.Errorf("the handler got body %q, want %q", clip(s.Body), clip(c.body))
	}
	if len(s.Trailer) > 0 && !to.Trailers {
		t.Errorf("the handler got the trailer %v", s.Trailer)
	}
	for name, values := range s.Header {
		for _, v := range values {
			if strings.ContainsAny(name+v, "\r\n\x00") {
				t.Errorf("the handler got header %q: %q", name, v)
			}
		}
	}
	if len(s.Header["Content-Length"]) > 0 && len(s.Header["Transfer-Encoding"]) > 0 {
		t.Errorf("the handler got both lengths: %v", s.Header)
	}
}
