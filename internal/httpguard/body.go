package httpguard

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// body is a request body that gives up on a client that does not send. The
// handler's goroutine asks about it while a proxy's may still be reading, even when
// the handler is over. A nil body is that of a request without one.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	http1   bool

	mu    sync.Mutex
	meter meter
	over  bool // it was read to its end
	free  bool // it has no deadlines any more
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	start := time.Now()
	b.mu.Lock()
	if !b.free {
		_ = b.control.SetReadDeadline(b.meter.deadline(start, 0)) // not every connection has one
	}
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = b.over || errors.Is(err, io.EOF)
	if b.free {
		return n, err
	}
	// Without a body to read the connection is only watched for the client's leaving;
	// in HTTP/2 a deadline ends the stream even when nobody reads.
	if err != nil || !b.http1 {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.meter.passed(n, time.Since(start))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return n, err
}

// unread reports whether the client may still be sending.
func (b *body) unread() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over
}

// release lets the rest take as long as it likes.
func (b *body) release() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.free && !b.over {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.free = true
}

// abandon leaves the connection to somebody else.
func (b *body) abandon() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = true
}

// finish is for when the handler is over: the server may look for the end of the
// body, but not for long.
func (b *body) finish() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = true
	if !b.over {
		_ = b.control.SetReadDeadline(time.Now().Add(min(lingering, b.meter.pace.Window)))
	}
}
