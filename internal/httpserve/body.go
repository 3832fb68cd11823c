package httpserve

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// watchedBody is a request body that knows how much of it is left. The
// handler's goroutine asks while a proxy's may still be reading.
type watchedBody struct {
	io.ReadCloser
	left atomic.Int64 // negative: unknown
	over atomic.Bool
}

// watchBody puts a watch on the body of an HTTP/1 request, and returns nil for
// all others: in HTTP/2 a body that is not read costs only its own stream.
func watchBody(r *http.Request) *watchedBody {
	if r.ProtoMajor != 1 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	b := &watchedBody{ReadCloser: r.Body}
	b.left.Store(r.ContentLength)
	r.Body = b
	return b
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) || (b.left.Load() > 0 && b.left.Add(-int64(n)) <= 0) {
		b.over.Store(true)
	}
	return n, err
}

// unread reports whether the client may still be sending.
func (b *watchedBody) unread() bool { return b != nil && !b.over.Load() }
