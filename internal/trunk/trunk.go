// Package trunk carries many byte streams over one connection: the host's side
// of a sandbox dials ports inside, the sandbox's side serves them.
//
// Multiplexing is smux, version 2. On a new stream the dialler sends the port,
// two bytes, most significant first, and the server answers with one byte, a
// status; after that the stream belongs to the two ends. There are no
// keep-alives and no time limits of the protocol's own, so that a sandbox that
// is paused for long finds its trunk as it was.
//
// Neither side trusts the other: what either has to hold in memory for a peer
// that does not read is bounded.
package trunk

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/xtaci/smux"
)

// ErrRefused says that nothing listens on the port.
var ErrRefused = errors.New("connection refused")

// ErrFailed says that the other side could not open the port for another reason.
var ErrFailed = errors.New("connection failed")

const (
	statusOpen    = 0
	statusRefused = 1
	statusFailed  = 2
)

func settings() *smux.Config {
	return &smux.Config{
		Version: 2, KeepAliveDisabled: true,
		MaxFrameSize:     64<<10 - 1,
		MaxStreamBuffer:  512 << 10, // what one stream may send ahead of its reader
		MaxReceiveBuffer: 8 << 20,   // the same for all streams together
	}
}

// readAhead is how many bytes are read at once where they are there: a frame is
// a header and its data otherwise, two system calls.
const readAhead = 256 << 10

// buffered is a connection that is read in large pieces.
type buffered struct {
	io.ReadWriteCloser
	in *bufio.Reader
}

func newBuffered(conn io.ReadWriteCloser) *buffered {
	return &buffered{ReadWriteCloser: conn, in: bufio.NewReaderSize(conn, readAhead)}
}

// Read implements io.Reader.
func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// Dialer opens streams. It is safe for concurrent use.
type Dialer struct{ mux *smux.Session }

// NewDialer takes over conn.
func NewDialer(conn io.ReadWriteCloser) (*Dialer, error) {
	mux, err := smux.Client(newBuffered(conn), settings())
	if err != nil {
		return nil, fmt.Errorf("start trunk: %w", err)
	}
	return &Dialer{mux: mux}, nil
}

// Close ends the connection and all its streams.
func (d *Dialer) Close() error { return d.mux.Close() }

// Alive reports whether the connection is still there.
func (d *Dialer) Alive() bool { return !d.mux.IsClosed() }

// Dial opens a stream to a port. It returns ErrRefused or ErrFailed, wrapped,
// when the other side says so.
func (d *Dialer) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	stream, err := d.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	status, err := handshake(stream, port)
	if !stop() {
		stream.Close()
		return nil, ctx.Err()
	}
	if err == nil && status == statusOpen {
		return stream, nil
	}
	stream.Close()
	switch {
	case err != nil:
		return nil, fmt.Errorf("open port %d: %w", port, err)
	case status == statusRefused:
		return nil, fmt.Errorf("open port %d: %w", port, ErrRefused)
	}
	return nil, fmt.Errorf("open port %d: %w", port, ErrFailed)
}

func handshake(stream *smux.Stream, port uint16) (status byte, err error) {
	var header [2]byte
	binary.BigEndian.PutUint16(header[:], port)
	if _, err := stream.Write(header[:]); err != nil {
		return 0, err
	}
	var answer [1]byte
	_, err = io.ReadFull(stream, answer[:])
	return answer[0], err
}

// Handler serves one stream to a port: it calls accept, which sends the
// status, when it has what the port stands for, and uses and closes the
// connection that accept returns. When it returns an error instead, the stream
// is refused.
type Handler func(ctx context.Context, port uint16, accept func() (net.Conn, error)) error

// Serve serves the streams that arrive on conn, each in a goroutine of its
// own, until conn or ctx ends; then it closes conn and waits for the handlers.
func Serve(ctx context.Context, conn io.ReadWriteCloser, handle Handler) error {
	mux, err := smux.Server(newBuffered(conn), settings())
	if err != nil {
		return fmt.Errorf("start trunk: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { mux.Close() })
	defer stop()
	var handlers sync.WaitGroup
	for {
		stream, err := mux.AcceptStream()
		if err != nil {
			mux.Close()
			cancel()
			handlers.Wait()
			// However the other side went, it is gone.
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) {
				return nil
			}
			return fmt.Errorf("accept stream: %w", err)
		}
		handlers.Go(func() { serve(ctx, stream, handle) })
	}
}

func serve(ctx context.Context, stream *smux.Stream, handle Handler) {
	var header [2]byte
	if _, err := io.ReadFull(stream, header[:]); err != nil {
		stream.Close()
		return
	}
	accepted := false
	err := handle(ctx, binary.BigEndian.Uint16(header[:]), func() (net.Conn, error) {
		accepted = true
		if _, err := stream.Write([]byte{statusOpen}); err != nil {
			stream.Close()
			return nil, fmt.Errorf("accept stream: %w", err)
		}
		return stream, nil
	})
	if accepted {
		return
	}
	status := byte(statusFailed)
	if errors.Is(err, ErrRefused) {
		status = statusRefused
	}
	_, _ = stream.Write([]byte{status})
	stream.Close()
}
