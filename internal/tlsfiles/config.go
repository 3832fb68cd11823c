package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Server is the configuration of a server that speaks protocols, such as "h2" and
// "http/1.1". Open comes before the first handshake. The error says that the Config is
// not one for servers.
func (f *Files) Server(protocols ...string) (*tls.Config, error) {
	switch {
	case f.cfg.CertFile == "":
		return nil, errors.New("serve TLS: there is no certificate")
	case f.cfg.CAFile != "" && len(f.cfg.Peers) == 0:
		return nil, errors.New("serve TLS: it is not said which clients may connect")
	case f.cfg.CAFile == "" && len(f.cfg.Peers) > 0:
		return nil, errors.New("serve TLS: it is not said whose certificates clients show")
	}
	fixed := func() *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true}
	}
	out := fixed()
	out.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m := f.now()
		c := fixed()
		c.Certificates = []tls.Certificate{*m.cert}
		if f.cfg.CAFile != "" {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, m.roots
			c.VerifyConnection = func(s tls.ConnectionState) error { return oneOf(f.cfg.Peers, s.PeerCertificates[0]) }
		}
		return c, nil
	}
	return out, nil
}

// Client is the configuration of a client. Open comes before the first handshake.
func (f *Files) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if m := f.now(); m.cert != nil {
				return m.cert, nil
			}
			return &tls.Certificate{}, nil // none
		},
		// The authorities may be exchanged, and the name may be none of a host: what
		// would be verified is, in VerifyConnection.
		InsecureSkipVerify: true, //nolint:gosec // as said
		VerifyConnection:   f.verifyServer,
	}
}

// verifyServer checks the certificate of a server: its chain, and whose it is.
func (f *Files) verifyServer(s tls.ConnectionState) error {
	cert := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: f.now().roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := cert.Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	if len(f.cfg.Peers) > 0 {
		return oneOf(f.cfg.Peers, cert)
	}
	if err := cert.VerifyHostname(s.ServerName); err != nil {
		return fmt.Errorf("check certificate: %w", err)
	}
	return nil
}
