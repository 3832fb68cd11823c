package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis/address"
)

const (
	// maxPassword and maxCertificates bound what is read of files, in bytes.
	maxPassword     = 4 << 10
	maxCertificates = 1 << 20
	// bufferBytes is the size of the two buffers of a connection; larger records
	// pass too.
	bufferBytes = 64 << 10
)

// options are what the client library is told. Its own retries are off, as it
// does not know which of our writes can be repeated; it always asks through a
// queue, as it is then that it gives up when the context ends.
func (s *Store) options(to address.Address) (valkey.ClientOption, error) {
	opt := valkey.ClientOption{
		InitAddress: to.Hosts, SelectDB: to.Database, ClientName: "agentcube",
		ClientSetInfo: valkey.DisableClientSetInfo,
		DisableRetry:  true, DisableCache: true, AlwaysPipelining: true,
		ReadBufferEachConn: bufferBytes, WriteBufferEachConn: bufferBytes,
		Dialer: net.Dialer{Timeout: s.cfg.Timeout, KeepAlive: time.Second}, ConnWriteTimeout: s.cfg.Timeout,
		PipelineMultiplex: 1,
	}
	if to.User != "" || s.cfg.PasswordFile != "" {
		opt.AuthCredentialsFn = func(valkey.AuthCredentialsContext) (valkey.AuthCredentials, error) {
			password, err := readPassword(s.cfg.PasswordFile)
			return valkey.AuthCredentials{Username: to.User, Password: password}, err
		}
		if _, err := readPassword(s.cfg.PasswordFile); err != nil {
			return opt, err
		}
	}
	if to.TLS {
		var err error
		if opt.TLSConfig, err = s.tlsConfig(); err != nil {
			return opt, err
		}
	} else if s.cfg.CAFile != "" || s.cfg.CertFile != "" || s.cfg.KeyFile != "" {
		return opt, errors.New("there are files for TLS, but the URL asks for none: use rediss or valkeys")
	}
	switch to.Kind {
	case address.Unix:
		opt.InitAddress, opt.ForceSingleClient = []string{to.Path}, true
		opt.DialCtxFn = func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		}
	case address.Sentinel:
		opt.Sentinel = valkey.SentinelOption{
			MasterSet: to.Master, TLSConfig: opt.TLSConfig, Dialer: opt.Dialer, ClientName: opt.ClientName,
		}
	case address.Cluster:
		opt.ShuffleInit = true // so that not all ask the same member
	}
	return opt, nil
}

// readPassword is the first line of a file; "" when there is no file.
func readPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := readBounded(path, maxPassword)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" || strings.ContainsAny(password, "\r\n") {
		return "", fmt.Errorf("read password file: %s does not hold one line with a password", path)
	}
	return password, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, err
}

// tlsConfig leaves the name of the server open: that of each connection counts.
func (s *Store) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg.CAFile != "" {
		text, err := readBounded(s.cfg.CAFile, maxCertificates)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read CA file: %s holds no certificate in PEM", s.cfg.CAFile)
		}
	}
	if s.cfg.CertFile == "" && s.cfg.KeyFile == "" {
		return cfg, nil
	}
	own := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(s.cfg.CertFile, s.cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		return &cert, nil
	}
	if _, err := own(nil); err != nil {
		return nil, err
	}
	cfg.GetClientCertificate = own
	return cfg, nil
}

// connect makes the client, which connects at once, and tries again for a while
// when nobody is there.
func (s *Store) connect(ctx context.Context, to address.Address, opt valkey.ClientOption) (valkey.Client, error) {
	giveUp := time.Now().Add(patience * s.cfg.Timeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		client, err := dial(ctx, opt)
		switch {
		case err == nil:
			return client, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("connect to %s: %w", to, ctx.Err())
		case !isAway(err):
			return nil, &ServerError{
				Server: to.String(), Problem: "does not take the connection", Err: err,
				Fix: "compare user, password file and form of the address with what the server wants",
			}
		case time.Now().Add(pause).After(giveUp):
			return nil, &ServerError{
				Server: to.String(), Problem: "cannot be reached", Fix: "start it, or correct the address",
				Err: fmt.Errorf("%w: %w: %w", session.ErrUnavailable, session.ErrAway, err),
			}
		}
		if sleep(ctx, jittered(pause)) != nil {
			return nil, fmt.Errorf("connect to %s: %w", to, ctx.Err())
		}
	}
}

// dial makes a client, and gives up when ctx ends, which the library does not
// look at; a client that is made after that is closed.
func dial(ctx context.Context, opt valkey.ClientOption) (valkey.Client, error) {
	type made struct {
		client valkey.Client
		err    error
	}
	done := make(chan made, 1)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	go func() {
		client, err := valkey.NewClient(opt)
		if err != nil && client != nil {
			client.Close() // a half-made one
			client = nil
		}
		done <- made{client, err}
	}()
	select {
	case m := <-done:
		return m.client, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.client != nil {
				m.client.Close()
			}
		}()
		return nil, ctx.Err()
	}
}
