package httpguard

import (
	"context"
	"net"
	"sync"
	"time"
)

// TLSRecord is the first byte of a ClientHello (RFC 8446, 5.1), and of nothing that
// HTTP begins with.
const TLSRecord = 0x16

// firstByteTimeout bounds the wait for the first byte of a connection: who sends none
// is nobody.
const firstByteTimeout = 10 * time.Second

// Sorter is a listener that looks at how a connection begins before the connection is
// accepted. One that does not begin keeps no other waiting.
type Sorter struct {
	net.Listener
	peek func(net.Conn) (first byte, whole net.Conn, err error)
	sort func(ctx context.Context, conn net.Conn, first byte, serve func(net.Conn))

	ready chan net.Conn
	ctx   context.Context // ends with Finish
	stop  context.CancelFunc
	begun sync.Once
	wg    sync.WaitGroup
	err   error // why no more are accepted; set before over is closed
	over  chan struct{}
}

// NewSorter is one in front of l. Of each connection peek tells the first byte, and what
// to read the whole of it from; it may read until a deadline that is set and taken back
// around it. Then the connection is sort's, which may call serve to let it be accepted,
// or another in its place. The context of sort ends when [Sorter.Finish] gives up.
func NewSorter(
	l net.Listener,
	peek func(net.Conn) (first byte, whole net.Conn, err error),
	sort func(ctx context.Context, conn net.Conn, first byte, serve func(net.Conn)),
) *Sorter {
	s := &Sorter{Listener: l, peek: peek, sort: sort, ready: make(chan net.Conn), over: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Accept implements net.Listener.
func (s *Sorter) Accept() (net.Conn, error) {
	s.begun.Do(func() { s.wg.Go(s.accept) })
	select {
	case conn := <-s.ready:
		return conn, nil
	case <-s.over:
		return nil, s.err
	}
}

func (s *Sorter) accept() {
	defer close(s.over)
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			s.err = err
			return
		}
		s.wg.Go(func() { s.look(conn) })
	}
}

func (s *Sorter) look(conn net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(firstByteTimeout))
	first, whole, err := s.peek(conn)
	_ = conn.SetReadDeadline(time.Time{})
	if !stop() || err != nil {
		conn.Close()
		return
	}
	s.sort(s.ctx, whole, first, s.serve)
}

// serve lets a connection be accepted.
func (s *Sorter) serve(conn net.Conn) {
	select {
	case s.ready <- conn:
	case <-s.over: // nobody accepts any more
		conn.Close()
	}
}

// Finish waits for what sort still does, until ctx ends, and gives that up then. The
// listener has been closed.
func (s *Sorter) Finish(ctx context.Context) {
	defer context.AfterFunc(ctx, s.stop)()
	s.wg.Wait()
	s.stop()
}
