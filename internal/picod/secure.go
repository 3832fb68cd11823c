package picod

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// helloTimeout bounds the wait for the first byte of a connection.
const helloTimeout = 10 * time.Second

// tlsRecord is the first byte of a ClientHello, and of nothing that HTTP begins with.
const tlsRecord = 0x16

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

// sniffer accepts connections in plain text and with TLS on one address. An
// http.Server knows the latter by their type.
type sniffer struct {
	net.Listener
	config *tls.Config
	ready  chan net.Conn

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	begun sync.Once
	wg    sync.WaitGroup
	err   error // why no more are accepted; set before failed is closed
	over  chan struct{}
}

func newSniffer(l net.Listener, config *tls.Config) *sniffer {
	s := &sniffer{Listener: l, config: config, ready: make(chan net.Conn), over: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Accept implements net.Listener.
func (s *sniffer) Accept() (net.Conn, error) {
	s.begun.Do(func() { s.wg.Go(s.accept) })
	select {
	case conn := <-s.ready:
		return conn, nil
	case <-s.over:
		return nil, s.err
	}
}

func (s *sniffer) accept() {
	defer close(s.over)
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			s.err = err
			return
		}
		s.wg.Go(func() { s.sniff(conn) })
	}
}

// sniff looks at the first byte. Who sends none is nobody.
func (s *sniffer) sniff(conn net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	first := make([]byte, 1)
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	_, err := io.ReadFull(conn, first)
	_ = conn.SetReadDeadline(time.Time{})
	if !stop() || err != nil {
		conn.Close()
		return
	}
	var found net.Conn = &begunConn{Conn: conn, before: bytes.NewReader(first)}
	if first[0] == tlsRecord {
		found = tls.Server(newCoalescer(found), s.config)
	}
	select {
	case s.ready <- found:
	case <-s.ctx.Done():
		conn.Close()
	}
}

// Close implements net.Listener.
func (s *sniffer) Close() error {
	err := s.Listener.Close()
	s.stop()
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
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
