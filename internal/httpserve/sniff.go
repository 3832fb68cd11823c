package httpserve

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sniffTimeout bounds the wait for the first byte of a connection.
const sniffTimeout = 10 * time.Second

// tlsRecord is the first byte of a ClientHello, and of nothing that HTTP begins with.
const tlsRecord = 0x16

// sniffer keeps connections that begin with a ClientHello apart from the others.
// The first byte is looked at and left where it is, so that connections in plain
// text stay what they are to the HTTP server. With a configuration of TLS that gets
// none of them: it is given connections that speak it.
type sniffer struct {
	net.Listener
	tls    *tls.Config // nil: plain text
	onTLS  func(context.Context, net.Conn, func(net.Conn))
	served chan net.Conn

	ctx  context.Context // ends with finish
	stop context.CancelFunc
	once sync.Once
	wg   sync.WaitGroup
	err  error // set before over is closed
	over chan struct{}
}

func newSniffer(l net.Listener, config *tls.Config, onTLS func(context.Context, net.Conn, func(net.Conn))) *sniffer {
	s := &sniffer{Listener: l, tls: config, onTLS: onTLS, served: make(chan net.Conn), over: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Accept implements net.Listener.
func (s *sniffer) Accept() (net.Conn, error) {
	s.once.Do(func() { s.wg.Go(s.accept) })
	select {
	case conn := <-s.served:
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

func (s *sniffer) sniff(conn net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	first, err := peek(conn)
	if !stop() || err != nil {
		conn.Close()
		return
	}
	var encrypted func(net.Conn)
	if s.tls != nil {
		encrypted = func(conn net.Conn) { s.serve(tls.Server(conn, s.tls)) }
	}
	switch {
	case first == tlsRecord:
		s.onTLS(s.ctx, conn, encrypted)
	case encrypted != nil: // whose handshake fails, and says why in plain text
		encrypted(conn)
	default:
		s.serve(conn)
	}
}

// serve gives a connection to the HTTP server.
func (s *sniffer) serve(conn net.Conn) {
	select {
	case s.served <- conn:
	case <-s.over: // nobody accepts any more
		conn.Close()
	}
}

// peek waits for the first byte, and leaves it there.
func peek(conn net.Conn) (first byte, err error) {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errors.New("look at connection: it is not one of the system's")
	}
	_ = conn.SetReadDeadline(time.Now().Add(sniffTimeout))
	defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
	control, err := raw.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var recvErr error
	buf := make([]byte, 1)
	err = control.Read(func(fd uintptr) bool {
		n, _, recvErr = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
	})
	if err = errors.Join(err, recvErr); err == nil && n == 0 {
		err = net.ErrClosed // the client is gone
	}
	return buf[0], err
}

// finish waits for the connections with TLS to end, until ctx does, and gives up
// what is left then. The listener has been closed.
func (s *sniffer) finish(ctx context.Context) {
	defer context.AfterFunc(ctx, s.stop)()
	s.wg.Wait()
	s.stop()
}
