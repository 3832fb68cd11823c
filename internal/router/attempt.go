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
}

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

// unsent is the body of a request that may have to be sent twice: the transport
// closes what it is given, and whether it has begun to read decides.
type unsent struct {
	io.ReadCloser
	attempt *attempt
}

func (b *unsent) Read(p []byte) (int, error) {
	b.attempt.read.Store(true)
	return b.ReadCloser.Read(p)
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
