package httpguard

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// ErrStalled is the error of reading a body that does not get on.
var ErrStalled = errors.New("the client sends too slowly")

const (
	// lingering is how long the server waits for the rest of a body that its
	// handler did not read.
	lingering = 5 * time.Second
	// pieceSize is how much is sent at a time, so that a client has to take part of
	// a large answer to get more time for the rest.
	pieceSize = 256 << 10
)

// Pace is how slow a client may be: in each Window of waiting for it, Bytes have to
// pass. The time that a handler takes for something else does not count.
type Pace struct {
	Window time.Duration
	Bytes  int64
}

// DefaultPace is some 9 kbit/s, and no standstill longer than a minute.
func DefaultPace() Pace { return Pace{Window: time.Minute, Bytes: 64 << 10} }

// meter holds one direction to its pace.
type meter struct {
	pace   Pace
	waited time.Duration
	moved  int64
}

// deadline is when the next n bytes have to have passed.
func (m *meter) deadline(now time.Time, n int) time.Time {
	more := float64(m.pace.Window) * float64(n) / float64(m.pace.Bytes)
	return now.Add(m.pace.Window - m.waited + time.Duration(more))
}

func (m *meter) passed(n int, took time.Duration) {
	m.moved += int64(n)
	if m.waited += took; m.moved >= m.pace.Bytes {
		m.moved, m.waited = 0, 0
	}
}

// Transfers is a guard around a handler.
type Transfers struct {
	Pace Pace // the zero value: DefaultPace
	// Duplex lets a body take as long as it likes once the answer has begun: client
	// and handler are in a conversation then.
	Duplex bool
}

// Wrap puts the guard around a handler.
func (t Transfers) Wrap(next http.Handler) http.Handler {
	if t.Pace == (Pace{}) {
		t.Pace = DefaultPace()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		out := &writer{ResponseWriter: w, control: control, meter: meter{pace: t.Pace}, duplex: t.Duplex,
			ambiguous: ambiguous(r), http1: r.ProtoMajor == 1}
		_, out.tcp = r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if r.Body != nil && r.Body != http.NoBody {
			out.body = &body{ReadCloser: r.Body, control: control, http1: out.http1, meter: meter{pace: t.Pace}}
			// A copy: the server looks at its own request to see whether the client
			// may still be sending, and then lets it get the answer before it hangs up.
			r = r.WithContext(r.Context())
			r.Body = out.body
		}
		defer out.finish()
		next.ServeHTTP(out, r)
	})
}

// ambiguous reports whether something before this server may think that the
// request ends elsewhere, so that its connection must not be used again. RFC 9112
// wants that of requests with both Content-Length and Transfer-Encoding, and of
// HTTP/1.0 with the latter. Go's server decides as the RFC says, and then removes
// the header that would tell: so it is done for all that may be such a request.
func ambiguous(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
}

// writer is an answer. Its methods are those that http.ResponseController looks
// for, and io.ReaderFrom.
type writer struct {
	http.ResponseWriter
	control   *http.ResponseController
	body      *body // nil: the request has none
	meter     meter
	duplex    bool
	ambiguous bool
	http1     bool
	tcp       bool // the kernel can send files
	begun     bool
	hijacked  bool
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	switch {
	case status >= http.StatusOK:
		w.begin()
	case status != http.StatusSwitchingProtocols:
		// It announces another one, and is sent at once.
		_, _ = w.send(0, func() (int64, error) { w.ResponseWriter.WriteHeader(status); return 0, nil })
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

// begin tells a client that the connection ends with this answer: when it is
// ambiguous where the next request begins, and when this one has not been read in
// full, as the server closes the connection then.
func (w *writer) begin() {
	if w.begun {
		return
	}
	w.begun = true
	if w.http1 && (w.ambiguous || w.body.unread()) {
		w.Header().Set("Connection", "close")
	}
	if w.duplex {
		w.body.release()
	}
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.begin()
	total := 0
	for {
		piece := p[total:min(len(p), total+pieceSize)]
		n, err := w.send(len(piece), func() (int64, error) { n, err := w.ResponseWriter.Write(piece); return int64(n), err })
		if total += int(n); err != nil || total >= len(p) {
			return total, err
		}
	}
}

// send sends n bytes, in the time that they may take.
func (w *writer) send(n int, do func() (int64, error)) (int64, error) {
	start := time.Now()
	_ = w.control.SetWriteDeadline(w.meter.deadline(start, n)) // not every connection has one
	sent, err := do()
	w.meter.passed(int(sent), time.Since(start))
	if !w.http1 {
		// In HTTP/2 it would end the stream even when nothing is being sent.
		_ = w.control.SetWriteDeadline(time.Time{})
	}
	return sent, err
}

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	w.begin()
	_, err := w.send(0, func() (int64, error) { return 0, w.control.Flush() })
	return err
}

// Hijack is for http.ResponseController. What becomes of the connection is the
// hijacker's.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.control.Hijack()
	if err == nil {
		w.hijacked = true
		w.body.abandon()
	}
	return conn, rw, err
}

// ReadFrom keeps the kernel's own way of sending a file, in pieces.
func (w *writer) ReadFrom(from io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok || !w.tcp {
		return io.CopyBuffer(struct{ io.Writer }{w}, from, make([]byte, pieceSize))
	}
	w.begin()
	piece := &io.LimitedReader{R: from}
	limited, isLimited := from.(*io.LimitedReader)
	if isLimited {
		piece.R = limited.R // sending from a file sees through one limit only
	}
	var total int64
	for {
		want := int64(pieceSize)
		if isLimited {
			want = min(want, limited.N)
		}
		piece.N = want
		n, err := w.send(int(want), func() (int64, error) { return to.ReadFrom(piece) })
		total += n
		if isLimited {
			limited.N -= n
		}
		if err != nil || n < want || want == 0 {
			return total, err
		}
	}
}

// finish bounds what the server itself does when the handler is over: it reads the
// rest of the body, and sends what is still in its buffers.
func (w *writer) finish() {
	if w.hijacked {
		return
	}
	w.begin() // the server answers when the handler has not
	w.body.finish()
	_ = w.control.SetWriteDeadline(w.meter.deadline(time.Now(), 0))
}
