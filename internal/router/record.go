package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// maxContent bounds what is recorded of a body, where the operator has turned that on.
const maxContent = 64 << 10

// actorOf is who may send requests to a session.
func actorOf(rec session.Session) string {
	if rec.Auth == api.AuthClientKey {
		return record.ActorKey
	}
	return rec.Owner
}

// caused says in ctx that a request which was let in is why something is done.
func caused(r *http.Request, actor string) context.Context {
	return audit.WithCause(r.Context(), audit.Cause{Actor: actor, RequestID: httpserve.RequestID(r.Context()), From: r.RemoteAddr})
}

// recording is what will be recorded of a call.
type recording struct {
	rt    *Router
	start time.Time
	input *meter

	mu     sync.Mutex
	event  record.Event
	output *meter // nil: there is no answer with a body yet
	done   bool
}

// newRecording begins to record a call that was let in. What passes of the body of
// r from now on is counted.
func (rt *Router) newRecording(c *call, r *http.Request) *recording {
	rec := c.target.record()
	e := audit.Of(caused(r, actorOf(rec)), record.Request)
	e.Owner, e.Session, e.Method, e.Path = rec.Owner, rec.ID, r.Method, api.RequestTarget(c.path, c.query)
	if rec.Auth == api.AuthClientKey {
		e.Signature = boundToken(r)
	}
	g := &recording{rt: rt, start: time.Now(), event: e}
	if r.Body != nil && r.Body != http.NoBody {
		g.input = rt.newMeter(r.Body, r.ContentLength, nil)
		r.Body = g.input
	}
	return g
}

// boundToken is the token of a request if it is good for this one alone. Its
// signature has been checked.
func boundToken(r *http.Request) string {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		Method string `json:"htm"`
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Method == "" {
		return ""
	}
	return token
}

// answered notes the answer of the sandbox, whose body is recorded as it passes.
// The line is written before the last of it is handed on: who has the whole answer
// has been recorded.
func (g *recording) answered(resp *http.Response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.event.Status = resp.StatusCode
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.Body == http.NoBody {
		return
	}
	g.output = g.rt.newMeter(resp.Body, resp.ContentLength, g.finish)
	g.output.encoding = resp.Header.Get("Content-Encoding")
	resp.Body = g.output
}

// failed notes that there was no answer of the sandbox.
func (g *recording) failed(err error) {
	e := httpserve.AsError(err)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.event.Status, g.event.Code = e.Status, string(e.Code)
}

// finish writes the line, once.
func (g *recording) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done {
		return
	}
	g.done = true
	e := &g.event
	e.Seconds = time.Since(g.start).Seconds()
	e.Input, _ = g.input.body()
	var whole bool
	e.Output, whole = g.output.body()
	e.Aborted = e.Output != nil && !whole || e.Status == httpserve.StatusClientClosedRequest
	g.rt.cfg.Audit.Append(*e)
}

// meter notes the bytes of a body as they pass.
type meter struct {
	io.ReadCloser
	length   int64 // that is announced; -1: none
	encoding string
	ended    func() // called when all has been read, before that is told; may be nil

	mu     sync.Mutex
	sum    hash.Hash
	passed int64
	whole  bool
	keep   bool
	kept   bytes.Buffer
}

func (rt *Router) newMeter(body io.ReadCloser, length int64, ended func()) *meter {
	return &meter{ReadCloser: body, length: length, ended: ended, sum: sha256.New(), keep: rt.cfg.AuditContent}
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.mu.Lock()
	m.sum.Write(p[:n])
	m.passed += int64(n)
	if m.keep {
		m.kept.Write(p[:min(n, maxContent-m.kept.Len())])
	}
	m.whole = m.whole || err == io.EOF || m.passed == m.length
	over := m.whole
	m.mu.Unlock()
	if over && m.ended != nil {
		m.ended()
	}
	return n, err
}

// body is what is to be recorded; whole says whether that is all of it.
func (m *meter) body() (b *record.Body, whole bool) {
	if m == nil {
		return nil, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b = &record.Body{Bytes: m.passed, Encoding: m.encoding}
	if m.whole {
		b.SHA256 = hex.EncodeToString(m.sum.Sum(nil))
	}
	if m.keep {
		b.Content = bytes.Clone(m.kept.Bytes())
	}
	return b, m.whole
}

// auditRefused records a request that did not come to a sandbox. Nobody knows whose
// it was, or that they are who they say.
func (rt *Router) auditRefused(r *http.Request, status int, code string) {
	n := rt.strangers.Take(time.Now())
	if n == 0 {
		return
	}
	rt.cfg.Audit.Append(record.Event{
		Action: record.Refused, RequestID: httpserve.RequestID(r.Context()), From: r.RemoteAddr,
		Method: r.Method, Path: r.URL.Path, Status: status, Code: code, Count: n,
	})
}

// auditTunnel records an encrypted connection, of which nothing else is known.
func (s *splice) auditTunnel(action record.Action, from string, took time.Duration) {
	rec := s.target.record()
	e := record.Event{Action: action, Owner: rec.Owner, Session: rec.ID, From: from}
	if action == record.TunnelClosed {
		e.Seconds = took.Seconds()
		e.Input, e.Output = &record.Body{Bytes: s.sent.Load()}, &record.Body{Bytes: s.received.Load()}
	}
	s.rt.cfg.Audit.Append(e)
}
