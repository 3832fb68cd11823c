package router_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/internal/router"
)

// TestOwnersShare: who has as many requests under way as one may have is refused at
// once, and others are served.
func TestOwnersShare(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			close(entered)
			<-release
		}
	}, func(_ *world, c *router.Config) { c.MaxPerOwner = 1 })
	hers, his := w.add(nil), w.add(ofBob)
	done := make(chan answer)
	go func() { done <- w.do("GET", base+"/hold", "", as(hers, "alice")...) }()
	<-entered
	if got := w.do("GET", base+"/", "", as(hers, "alice")...); got.status != http.StatusTooManyRequests {
		t.Errorf("a second request = %d %s", got.status, got.body)
	}
	if got := w.do("GET", base+"/", "", as(his, "bob")...); got.status != http.StatusOK {
		t.Errorf("another owner's request = %d %s", got.status, got.body)
	}
	close(release)
	if got := <-done; got.status != http.StatusOK {
		t.Errorf("the first request = %d %s", got.status, got.body)
	}
}

// TestAnswerHeadersAreBounded: what comes before the body of an answer has to be kept
// until it is whole.
func TestAnswerHeadersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		line := "X-A: " + strings.Repeat("a", 1000) + "\r\n"
		_, _ = io.WriteString(buf, "HTTP/1.1 200 OK\r\n"+strings.Repeat(line, 1000)+"Content-Length: 0\r\n\r\n")
		_ = buf.Flush()
	}, nil)
	rec := w.add(nil)
	if got := w.do("GET", base+"/", "", as(rec, "alice")...); got.status != http.StatusServiceUnavailable {
		t.Errorf("a megabyte of headers is answered %d", got.status)
	}
}
