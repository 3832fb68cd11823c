package httpserve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Server serves one handler on one address, and drains when told to stop.
type Server struct {
	// Addr is host:port; port 0 takes a free one.
	Addr    string
	Handler http.Handler
	// Logger gets the server's own errors; nil means slog.Default().
	Logger *slog.Logger
	// DrainTimeout bounds how long requests may go on after the end of Run's
	// context; what still runs then is cut off. 0 means 15 s.
	DrainTimeout time.Duration
	// OnDrain, when set, is called once when draining begins, such as to end
	// long streams.
	OnDrain func()
	// OnTLS, when set, gets the connections that begin with a ClientHello, whose
	// bytes are all still to be read. It closes them; ctx ends when the server drains.
	OnTLS func(ctx context.Context, conn net.Conn)

	listener net.Listener
}

// Listen takes the address. When another process has it, the error is an
// *AddrInUseError that says which. Run calls it when nobody has before.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return describeHolder(ctx, s.Addr, err)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.Addr, err)
	}
	s.listener = l
	return nil
}

// Address is where the server listens, after Listen.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then stops to accept, waits for requests under
// way and returns nil. HTTP/1.1 and, on plain text, HTTP/2 with prior knowledge are
// spoken. There is no limit on how long an answer may take.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	logger := s.Logger
	if logger == nil {
		logger = slog.Default()
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           s.Handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	listener, finish := s.listener, func(context.Context) {}
	if s.OnTLS != nil {
		sniffing := newSniffer(listener, s.OnTLS)
		listener, finish = sniffing, sniffing.finish
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	return s.drain(ctx, srv, failed, finish)
}

func (s *Server) drain(ctx context.Context, srv *http.Server, failed <-chan error, finish func(context.Context)) error {
	timeout := s.DrainTimeout
	if timeout == 0 {
		timeout = 15 * time.Second
	}
	if s.OnDrain != nil {
		s.OnDrain()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		// The time was over: cutting off what is left is what was asked for.
		err = srv.Close()
	}
	_ = <-failed // that it was shut down
	finish(ctx)
	if err != nil {
		return fmt.Errorf("shut down http server: %w", err)
	}
	return nil
}
