package picod

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
)

// beatEvery is how often a request that lasts shows that it does.
const beatEvery = time.Second

// beat sends "100 Continue" now and then, which clients pass over, until quiet is
// called: who carries an encrypted connection sees nothing of it but bytes, and
// takes one without any for idle.
func (q *request) beat() (quiet func()) {
	if q.r.TLS == nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(q.r.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				q.w.WriteHeader(http.StatusContinue)
			}
		}
	}()
	return func() {
		stop()
		<-over
	}
}

// sniff accepts connections in plain text and with TLS on one address. An http.Server
// knows the latter by their type.
func sniff(l net.Listener, config *tls.Config) *httpguard.Sorter {
	return httpguard.NewSorter(l, begin, func(_ context.Context, conn net.Conn, first byte, serve func(net.Conn)) {
		if first == httpguard.TLSRecord {
			conn = tls.Server(newCoalescer(conn), config)
		}
		serve(conn)
	})
}

// begin reads the first byte of a connection.
func begin(conn net.Conn) (first byte, whole net.Conn, err error) {
	read := make([]byte, 1)
	_, err = io.ReadFull(conn, read)
	return read[0], &begunConn{Conn: conn, before: bytes.NewReader(read)}, err
}

// begunConn is a connection of which something was read before.
type begunConn struct {
	net.Conn
	before *bytes.Reader
}

// Read implements net.Conn.
func (c *begunConn) Read(p []byte) (int, error) {
	if c.before.Len() > 0 {
		return c.before.Read(p)
	}
	return c.Conn.Read(p)
}

// NetConn is the connection below, which is counted.
func (c *begunConn) NetConn() net.Conn { return c.Conn }

// RemoteAddr implements net.Conn. A stream from the host has none, which HTTP/2 does
// not expect.
func (c *begunConn) RemoteAddr() net.Addr {
	if addr := c.Conn.RemoteAddr(); addr != nil {
		return addr
	}
	return noAddr{}
}

// noAddr is the address of the host.
type noAddr struct{}

// Network implements net.Addr.
func (noAddr) Network() string { return "trunk" }

// String implements net.Addr.
func (noAddr) String() string { return "host" }
