package httpserve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
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
	// MaxConnections bounds the connections, and the requests on all of them
	// together. Those without a request make room for others. 0 means no bound.
	MaxConnections int
	// HeaderTimeout bounds how long the header of a request may take; 0 means 10 s.
	HeaderTimeout time.Duration
	// OnDrain, when set, is called once when draining begins, such as to end
	// long streams.
	OnDrain func()
	// TLS, when set, is what is served with, and nothing in plain text. It names h2 and
	// http/1.1 as its protocols.
	TLS *tls.Config
	// OnTLS, when set, gets the connections that begin with a ClientHello, whose
	// bytes are all still to be read. It closes them, or gives them to serve, with all
	// their bytes, to be served with TLS; without TLS serve is nil. ctx ends when the
	// server drains.
	OnTLS func(ctx context.Context, conn net.Conn, serve func(net.Conn))

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
// way and returns nil. HTTP/1.1 and HTTP/2 are spoken, the latter in plain text with
// prior knowledge. There is no limit on how long an answer may take.
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
	srv, listener, finish := s.server(logger)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	return s.drain(ctx, srv, failed, finish)
}

// server is the HTTP server, the listener that it serves, and what waits for the
// connections that are not its own.
func (s *Server) server(logger *slog.Logger) (srv *http.Server, l net.Listener, finish func(context.Context)) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(s.TLS == nil)
	protocols.SetHTTP2(s.TLS != nil)
	timeout := s.HeaderTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	srv = &http.Server{
		Handler:           s.Handler,
		Protocols:         &protocols,
		HTTP2:             http2(),
		ReadHeaderTimeout: timeout,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		// "OPTIONS *" is a request like others: the handler answers it.
		DisableGeneralOptionsHandler: true,
	}
	l, onTLS := s.listener, s.OnTLS
	if s.MaxConnections > 0 {
		limit := httpguard.NewConnections(s.MaxConnections, crowded)
		srv.Handler, srv.ConnContext, l = limit.Wrap(s.Handler), limit.Context, limit.Listener(l)
		if onTLS != nil {
			onTLS = func(ctx context.Context, conn net.Conn, serve func(net.Conn)) {
				limit.Use(conn, func() { s.OnTLS(ctx, conn, serve) })
			}
		}
	}
	if onTLS == nil {
		if s.TLS != nil {
			l = tls.NewListener(l, s.TLS)
		}
		return srv, l, func(context.Context) {}
	}
	sniffing := sniff(l, s.TLS, onTLS)
	return srv, sniffing, sniffing.Finish
}

// crowded is what a connection that finds no room is told.
const crowded = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n" +
	"X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n" +
	`{"error":"too many connections, please try again later","code":"SERVER_OVERLOADED","message":"too many connections, please try again later"}`

// http2 bounds what one connection can ask for: streams at a time, and bytes that
// are held for handlers which do not read them. Of a client that opens streams and
// resets them at once no more are served at a time either.
func http2() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          100,
		MaxReadFrameSize:              64 << 10,
		MaxReceiveBufferPerConnection: 256 << 10,
		MaxReceiveBufferPerStream:     128 << 10,
		MaxDecoderHeaderTableSize:     4 << 10,
		MaxEncoderHeaderTableSize:     4 << 10,
		SendPingTimeout:               time.Minute,
		WriteByteTimeout:              time.Minute,
	}
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
