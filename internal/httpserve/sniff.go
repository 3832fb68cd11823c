package httpserve

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/httpguard"
)

// sniff keeps connections that begin with a ClientHello apart from the others.
// The first byte is looked at and left where it is, so that connections in plain
// text stay what they are to the HTTP server. With a configuration of TLS that gets
// none of them: it is given connections that speak it.
func sniff(l net.Listener, config *tls.Config, onTLS func(context.Context, net.Conn, func(net.Conn))) *httpguard.Sorter {
	return httpguard.NewSorter(l, peek, func(ctx context.Context, conn net.Conn, first byte, serve func(net.Conn)) {
		var encrypted func(net.Conn)
		if config != nil {
			encrypted = func(conn net.Conn) { serve(tls.Server(conn, config)) }
		}
		switch {
		case first == httpguard.TLSRecord:
			onTLS(ctx, conn, encrypted)
		case encrypted != nil: // whose handshake fails, and says why in plain text
			encrypted(conn)
		default:
			serve(conn)
		}
	})
}

// peek waits for the first byte, and leaves it there.
func peek(conn net.Conn) (first byte, whole net.Conn, err error) {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return 0, nil, errors.New("look at connection: it is not one of the system's")
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return 0, nil, err
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
	return buf[0], conn, err
}
