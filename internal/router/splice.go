package router

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	// helloTimeout bounds how long a ClientHello may take, maxHello how long it is.
	helloTimeout = 10 * time.Second
	maxHello     = 64 << 10
	// quiet is for how long nothing may pass through a connection until its session
	// counts as idle. PicoD says something every second while a command lasts.
	quiet = 2500 * time.Millisecond
	// idleConn is for how long an idle connection is kept.
	idleConn = 90 * time.Second
)

// TLS alerts, RFC 8446 section 6, that tell a client why it is not let through.
const (
	alertInternal         = 80
	alertUnrecognizedName = 112
)

// Splice carries a connection that begins with a ClientHello to the sandbox of the
// session that it names, and ends with it. It reads the name and nothing else: the
// session's key, and the certificate that its creator was given, are at the two ends.
//
// A connection that names no session goes to other, with all that was sent, if there is
// somebody else who speaks TLS here; other may be nil.
func (rt *Router) Splice(ctx context.Context, conn net.Conn, other func(net.Conn)) {
	handedOn := false
	defer func() {
		if !handedOn {
			conn.Close()
		}
	}()
	defer rt.spliced.Add(-1)
	if n := rt.spliced.Add(1); rt.cfg.MaxConcurrent > 0 && n > int64(rt.cfg.MaxConcurrent) {
		rt.cfg.Rejected("connections")
		alert(conn, alertInternal)
		return
	}
	name, hello, err := readHello(ctx, conn)
	if err != nil {
		return
	}
	id, ok := api.SessionOfName(name)
	if !ok && other != nil {
		handedOn = true
		other(&replayed{conn, hello})
		return
	}
	if !ok {
		alert(conn, alertUnrecognizedName)
		return
	}
	if rt.cfg.Audit.Ready() != nil {
		alert(conn, alertInternal)
		return
	}
	s, err := rt.open(ctx, id)
	if err != nil {
		why := byte(alertInternal)
		if e, known := errors.AsType[*api.Error](err); known && e.Code != api.CodeServerOverloaded {
			why = alertUnrecognizedName
		}
		rt.log.Debug("connection not carried", "session", id, "error", err)
		alert(conn, why)
		return
	}
	defer s.end(context.WithoutCancel(ctx))
	began, from := time.Now(), conn.RemoteAddr().String()
	s.auditTunnel(record.TunnelOpened, from, 0)
	defer func() { s.auditTunnel(record.TunnelClosed, from, time.Since(began)) }()
	s.sent.Add(int64(len(hello)))
	if _, err := s.sandbox.Write(hello); err != nil {
		return
	}
	s.carry(ctx, conn)
}

// alert ends a handshake with a reason.
func alert(conn net.Conn, why byte) {
	const kind, fatal = 21, 2
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte{kind, 3, 3, 0, 2, fatal, why})
}

// errHelloRead ends a handshake that was only to be looked at.
var errHelloRead = errors.New("hello was read")

// readHello returns the name in a ClientHello, and the bytes that were read.
func readHello(ctx context.Context, conn net.Conn) (name string, hello []byte, err error) {
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	read := &helloConn{Conn: conn}
	err = tls.Server(read, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name = h.ServerName
			return nil, errHelloRead
		},
	}).HandshakeContext(ctx)
	if !errors.Is(err, errHelloRead) {
		return "", nil, fmt.Errorf("read hello: %w", err)
	}
	return name, read.taken.Bytes(), conn.SetReadDeadline(time.Time{})
}

// helloConn keeps what is read, up to a bound, and sends nothing.
type helloConn struct {
	net.Conn
	taken bytes.Buffer
}

func (c *helloConn) Read(p []byte) (int, error) {
	left := maxHello - c.taken.Len()
	if left <= 0 {
		return 0, errors.New("hello is too long")
	}
	n, err := c.Conn.Read(p[:min(len(p), left)])
	c.taken.Write(p[:n])
	return n, err
}

func (c *helloConn) Write(p []byte) (int, error) { return len(p), nil }

// Close is for the handshake, which ends here, and not for the connection.
func (c *helloConn) Close() error { return nil }

// replayed is a connection of which something has been read that is read once more.
type replayed struct {
	net.Conn
	again []byte
}

// Read implements io.Reader.
func (c *replayed) Read(p []byte) (int, error) {
	if len(c.again) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.again)
	c.again = c.again[n:]
	return n, nil
}

// NetConn is the connection itself, for those who have counted it.
func (c *replayed) NetConn() net.Conn { return c.Conn }

// splice is a connection to a sandbox that is not looked into.
type splice struct {
	rt      *Router
	target  *target
	sandbox net.Conn
	// Bytes that passed, as the client sees it.
	sent, received atomic.Int64

	mu     sync.Mutex
	active bool        // it counts as a request under way
	timer  *time.Timer // until it counts as idle, or then, until it is closed
	over   bool
}

// open connects to the sandbox of a session, which is woken if it is paused.
func (rt *Router) open(ctx context.Context, id string) (*splice, error) {
	enough := rt.targets.want(id)
	defer enough()
	for {
		t, rec, err := rt.targets.find(ctx, id)
		if err != nil {
			return nil, err
		}
		if rec.Auth != api.AuthClientKey || rec.Certificate == "" {
			return nil, unknownSession(id)
		}
		if t == nil {
			// Whose connection it is, the two ends know.
			if t, _, err = rt.awaken(audit.WithCause(ctx, audit.Cause{}), rec); err != nil {
				return nil, err
			}
		}
		if err := rt.targets.awaitRelease(ctx, id); err != nil {
			return nil, err
		}
		conn, err := t.dialPort(ctx, sandbox.AgentPort)
		if errors.Is(err, sandbox.ErrPaused) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("dial sandbox: %w", err)
		}
		s := &splice{rt: rt, target: t, sandbox: conn}
		if !s.move(ctx) {
			conn.Close()
			continue // it is about to be paused, or has been
		}
		return s, nil
	}
}

// move notes that something passes, which keeps the session from counting as idle.
// It returns false when the session is about to be paused.
func (s *splice) move(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if s.active {
		s.timer.Reset(quiet)
		return true
	}
	if !s.rt.targets.enter(s.target) {
		return false
	}
	if err := s.target.activity.begin(ctx); err != nil {
		s.rt.targets.leave(s.target)
		return false
	}
	s.active = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(quiet, func() { s.rest(context.Background()) })
	return true
}

// rest counts the connection as idle.
func (s *splice) rest(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.active {
		return
	}
	s.active = false
	s.timer.Stop()
	if !s.over {
		s.timer = time.AfterFunc(idleConn, func() { s.sandbox.Close() })
	}
	s.target.activity.end(ctx)
	s.rt.targets.leave(s.target)
	if s.rt.draining.Err() != nil {
		s.sandbox.Close()
	}
}

// drained ends the connection if nothing is under way.
func (s *splice) drained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.active {
		s.sandbox.Close()
	}
}

func (s *splice) end(ctx context.Context) {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.rest(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	s.sandbox.Close()
}

// carry copies both ways until one side ends.
func (s *splice) carry(ctx context.Context, client net.Conn) {
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	defer context.AfterFunc(s.rt.draining, s.drained)()
	var wg sync.WaitGroup
	copyTo := func(to, from net.Conn, passed *atomic.Int64) {
		buf := s.rt.buffers.Get()
		defer s.rt.buffers.Put(buf)
		_, _ = io.CopyBuffer(writerOnly{to}, &movingReader{from, s, ctx, passed}, buf)
		// The end of one direction is the end: TLS says goodbye by itself.
		client.Close()
		s.sandbox.Close()
	}
	wg.Go(func() { copyTo(s.sandbox, client, &s.sent) })
	copyTo(client, s.sandbox, &s.received)
	wg.Wait()
}

// writerOnly keeps io.CopyBuffer from doing without the buffer.
type writerOnly struct{ io.Writer }

// movingReader notes what passes.
type movingReader struct {
	net.Conn
	s      *splice
	ctx    context.Context
	passed *atomic.Int64
}

func (r *movingReader) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.passed.Add(int64(n))
		if !r.s.move(r.ctx) {
			return 0, session.ErrNotFound
		}
	}
	return n, err
}
