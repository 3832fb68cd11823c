package picod

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/audit"
)

// sealWait is how long a statement waits for requests under way: they have lost
// their connections, and end by themselves.
const sealWait = 500 * time.Millisecond

// note is what is recorded of a request; of one that is not, nothing.
type note struct{ entry *audit.Entry }

func (n note) code(reason string) {
	if n.entry != nil {
		n.entry.Code = reason
	}
}

func (n note) signature(token string) {
	if n.entry != nil {
		n.entry.Signature = token
	}
}

func (n note) input(size int64, sum string) {
	if n.entry != nil {
		n.entry.Input = &audit.Body{Bytes: size, SHA256: sum}
	}
}

// form notes an upload. What a signed one holds, its signature says.
func (n note) form(f *form) {
	if n.entry == nil {
		return
	}
	n.entry.Form = f.signature
	n.input(f.q.limit()-f.body.left, "")
	if f.body.hashed {
		n.entry.Input.SHA256 = hex.EncodeToString(f.body.sum.Sum(nil))
	}
}

// answer notes an answer before it is compressed.
func (n note) answer(text []byte) {
	if n.entry != nil {
		n.entry.Output = &audit.Body{Bytes: int64(len(text)), SHA256: hashOf(text)}
	}
}

// record notes a request in the session's record, once the returned function is called.
func (q *request) record() (end func()) {
	start := time.Now()
	q.note.entry = &audit.Entry{
		Time: start.UTC(), RequestID: q.id, Trace: q.parent.ID(), Method: q.r.Method, Path: api.RequestTarget(q.r.URL.Path, q.r.URL.RawQuery),
	}
	w := &notedWriter{ResponseWriter: q.w, q: q}
	q.w = w
	write := q.journal.Load().Begin()
	return func() {
		e := q.note.entry
		e.Seconds, e.Aborted = time.Since(start).Seconds(), q.r.Context().Err() != nil
		if e.Status = w.status; w.sum != nil {
			e.Output = &audit.Body{Bytes: w.written, SHA256: hex.EncodeToString(w.sum.Sum(nil))}
		}
		if err := write(*e); err != nil {
			q.log.Error("request not recorded", "requestId", q.id, "error", err)
		}
	}
}

// notedWriter notes the status of an answer, and hashes one that was not noted whole.
type notedWriter struct {
	http.ResponseWriter
	q       *request
	status  int
	written int64
	sum     hash.Hash // nil: the answer was noted, or there is none
}

// Unwrap is for http.ResponseController.
func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *notedWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Hijack is for http.ResponseController, when protocols are switched.
func (w *notedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status = http.StatusSwitchingProtocols
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Write implements http.ResponseWriter.
func (w *notedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	if w.q.note.entry.Output != nil {
		return n, err
	}
	if w.sum == nil {
		w.sum = sha256.New()
	}
	w.sum.Write(p[:n])
	w.written += int64(n)
	return n, err
}

// auditRecord answers with the session's record, or what it has after the line with
// the number ?after=, and a statement of where it ends.
func (q *request) auditRecord() *problem {
	if _, p := q.authorize(); p != nil {
		return p
	}
	session, key := q.gate.Statements()
	if key == nil {
		return fault(http.StatusNotFound, "NO_RECORD", "This session keeps no record of its own: it has no certificate")
	}
	var after uint64
	if text := q.r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 63); err != nil {
			return fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid query: after must be the number of a line")
		}
	}
	own := 0
	if q.note.entry != nil {
		own = 1
	}
	lines, statement, err := q.journal.Load().State(after, own, session, key)
	if err != nil {
		return fault(http.StatusInternalServerError, "INTERNAL", "The record could not be signed")
	}
	text := append(bytes.Join(lines, nil), `{"statement":"`+statement+"\"}\n"...)
	h := q.w.Header()
	h.Set("Content-Type", "application/jsonl; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	q.note.answer(text)
	q.w.WriteHeader(http.StatusOK)
	_, _ = q.w.Write(text) // a client that is gone cannot be told
	return nil
}

// seal answers the control plane, when the session pauses or has ended, with a
// statement of where the session's record ends, and with nothing of the record.
func (q *request) seal() *problem {
	if err := q.gate.CheckSeal(q.authorization()); err != nil {
		return refused(err)
	}
	session, key := q.gate.Statements()
	if key == nil {
		return fault(http.StatusNotFound, "NO_RECORD", "This session keeps no record of its own: it has no certificate")
	}
	record := q.journal.Load()
	select {
	case <-record.Idle():
	case <-time.After(sealWait):
	case <-q.r.Context().Done():
	}
	_, statement, err := record.State(1<<62, 0, session, key)
	if err != nil {
		return fault(http.StatusInternalServerError, "INTERNAL", "The statement could not be signed")
	}
	q.reply(http.StatusOK, false, audit.Closing{Statement: statement})
	return nil
}
