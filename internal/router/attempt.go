package router

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
)

// attempt notes how far a request has come on its way to a sandbox. The
// transport itself sends some requests again, when a connection that it has used
// before breaks off: then there are several connections.
type attempt struct {
	read atomic.Bool // of the body

	mu      sync.Mutex
	conn    *trackedConn
	before  int64 // what had been written to it
	reached bool  // by way of a connection before
	broken  error // of reading the body; nil: there was none
}

// brokenBody is the error of a request whose body could not be read: its sender
// has to hear of it, and the sandbox is not to blame.
type brokenBody struct{ error }

func (b *brokenBody) Unwrap() error { return b.error }

// gotConn is called with each connection, before anything is written to it.
func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	conn := info.Conn
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	tracked, ok := conn.(*trackedConn)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reached = a.reached || a.written() || !ok
	if a.conn = tracked; ok {
		a.before = tracked.wrote.Load()
	}
}

func (a *attempt) written() bool {
	return a.conn != nil && (a.conn.writing.Load() > 0 || a.conn.wrote.Load() > a.before)
}

// begun reports whether a part of the request may have reached the sandbox, or
// cannot be sent again.
func (a *attempt) begun() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reached || a.written() || a.read.Load()
}

// blame is why the request failed: err, or what was wrong with its body.
func (a *attempt) blame(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.broken != nil {
		return a.broken
	}
	return err
}

// unsent is the body of a request that may have to be sent twice: the transport
// closes what it is given, and whether it has begun to read decides.
type unsent struct {
	io.ReadCloser
	attempt *attempt
}

func (b *unsent) Read(p []byte) (int, error) {
	b.attempt.read.Store(true)
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.attempt.mu.Lock()
		b.attempt.broken = &brokenBody{err}
		b.attempt.mu.Unlock()
	}
	return n, err
}

// Close closes a body that is used up. Another is left for the next attempt, or
// for the server, which closes all of them.
func (b *unsent) Close() error {
	if b.attempt.read.Load() {
		return b.ReadCloser.Close()
	}
	return nil
}

// trackedConn tells its target when it is closed, and what was written to it.
type trackedConn struct {
	net.Conn
	target  *target
	writing atomic.Int32 // writes under way
	wrote   atomic.Int64 // bytes
}

// Write implements io.Writer.
func (c *trackedConn) Write(p []byte) (int, error) {
	c.writing.Add(1)
	defer c.writing.Add(-1)
	n, err := c.Conn.Write(p)
	c.wrote.Add(int64(n))
	return n, err
}

// Close implements io.Closer.
func (c *trackedConn) Close() error {
	c.target.mu.Lock()
	delete(c.target.conns, c)
	c.target.mu.Unlock()
	return c.Conn.Close()
}
