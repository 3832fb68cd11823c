package trunk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// Loopback is a Handler that connects streams to TCP ports on 127.0.0.1.
func Loopback(ctx context.Context, port uint16, accept func() (net.Conn, error)) error {
	var d net.Dialer
	local, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("dial port %d: %w", port, ErrRefused)
	}
	if err != nil {
		return fmt.Errorf("dial port %d: %w", port, err)
	}
	defer local.Close()
	stream, err := accept()
	if err != nil {
		return err
	}
	defer stream.Close()
	join(stream, local)
	return nil
}

// join copies both ways until either side is done.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			pair[0].Close()
			pair[1].Close()
		})
	}
	wg.Wait()
}

// Listener is a net.Listener whose connections are streams: an HTTP server can
// serve it. Make one with NewListener, and have a Handler call Deliver.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*Listener)(nil)

// NewListener returns a Listener.
func NewListener() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Deliver is a Handler, whatever the port, that gives the stream to Accept.
func (l *Listener) Deliver(ctx context.Context, _ uint16, accept func() (net.Conn, error)) error {
	select {
	case <-l.closed:
		return ErrRefused
	default:
	}
	conn, err := accept()
	if err != nil {
		return err
	}
	select {
	case l.conns <- conn:
	case <-l.closed:
		conn.Close()
	case <-ctx.Done():
		conn.Close()
	}
	return nil
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "trunk", Net: "unix"} }
