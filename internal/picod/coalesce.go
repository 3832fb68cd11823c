package picod

import (
	"net"
	"sync"
	"time"
)

const (
	// inlineBytes is up to which size a write is made at once, by the one who
	// writes, and pendingBytes how much others may have waiting.
	inlineBytes  = 4 << 10
	pendingBytes = 256 << 10
	// closeTimeout bounds how long what is waiting may take at the end.
	closeTimeout = 5 * time.Second
)

// coalescer writes in large pieces what comes in small ones while a write is under
// way. TLS writes records of 16 KiB, each of which is several system calls and two
// changes of goroutine here, for which gVisor takes its time.
type coalescer struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond // of mu
	pending []byte
	spare   []byte
	writing bool
	closed  bool
	err     error // of a write before
}

// NetConn is the connection below.
func (c *coalescer) NetConn() net.Conn { return c.Conn }

func newCoalescer(conn net.Conn) *coalescer {
	c := &coalescer{Conn: conn}
	c.changed.L = &c.mu
	return c
}

// Write implements net.Conn. An error may be that of a write before.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) >= pendingBytes && c.err == nil && !c.closed {
		c.changed.Wait()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	case !c.writing && len(p) <= inlineBytes:
		c.writing = true
		c.write(p)
		c.writing = false
		c.changed.Broadcast()
		if len(c.pending) > 0 {
			c.begin()
		}
		return len(p), c.err
	}
	c.pending = append(c.pending, p...)
	if !c.writing {
		c.begin()
	}
	return len(p), nil
}

// begin has what is pending written.
func (c *coalescer) begin() {
	c.writing = true
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for len(c.pending) > 0 && c.err == nil {
			piece := c.pending
			c.pending = c.spare[:0]
			c.write(piece)
			c.spare = piece
			c.changed.Broadcast()
		}
		c.writing = false
		c.changed.Broadcast()
	}()
}

// write lets go of the lock meanwhile.
func (c *coalescer) write(p []byte) {
	c.mu.Unlock()
	_, err := c.Conn.Write(p)
	c.mu.Lock()
	if err != nil && c.err == nil {
		c.err = err
	}
}

// Close implements net.Conn. What is pending is written before, if that does not
// take long.
func (c *coalescer) Close() error {
	_ = c.SetWriteDeadline(time.Now().Add(closeTimeout))
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	for c.writing && c.err == nil {
		c.changed.Wait()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}
