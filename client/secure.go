package client

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// secure makes the requests to one session over TLS that ends in its sandbox. The
// Router passes it on and sees nothing but its size.
type secure struct {
	name string // of the server, in TLS
	http *http.Client
}

// wakeTimeout bounds a handshake with a sandbox: the Router may have to wake it first,
// for which it gives itself 30 s, and 10 s more to reach it.
const wakeTimeout = 45 * time.Second

// secured is how a session is reached with encryption from end to end, or nil where
// that is not possible: the server does not offer it, nobody has the session's key,
// or connections are not made by this package. A Router at https:// is reached in the
// same way: the name of the session tells it that this TLS is not its own.
func (c *Client) secured(info api.Session, key *rsa.PrivateKey) (*secure, error) {
	if key == nil || info.Secure == nil || c.plain {
		return nil, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(info.Secure.Certificate)) {
		return nil, errors.New("the session's certificate cannot be read")
	}
	// Making it takes a signature, which the first connection has time for.
	own := sync.OnceValues(func() (*tls.Certificate, error) { return ownCertificate(key) })
	router := c.router.Host
	if c.router.Port() == "" {
		router = net.JoinHostPort(c.router.Hostname(), map[string]string{"http": "80", "https": "443"}[c.router.Scheme])
	}
	transport := newTransport()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, router) }
	transport.TLSHandshakeTimeout = wakeTimeout
	transport.TLSClientConfig = &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: info.Secure.ServerName,
		RootCAs:              roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() },
		// A connection of its own for each transfer is faster than a share of one.
		NextProtos: []string{"http/1.1"},
	}
	s := &secure{name: info.Secure.ServerName, http: &http.Client{Transport: transport, CheckRedirect: sameHostOnly}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secures = append(c.secures, s)
	return s, nil
}

// ownCertificate is the session key in the form in which TLS shows who one is.
func ownCertificate(key *rsa.PrivateKey) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "AgentCube client"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of the session key: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// forget drops the connections of a session that is not used any more.
func (c *Client) forget(s *secure) {
	if s == nil {
		return
	}
	s.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.secures {
		if other == s {
			c.secures = append(c.secures[:i:i], c.secures[i+1:]...)
			return
		}
	}
}

// notItsOwn explains that somebody else has answered in the place of a sandbox.
func notItsOwn(router *url.URL, cause error) error {
	return &ConnectError{URL: router.String(), Err: fmt.Errorf("the certificate shown is not that of the session's sandbox: something before the Router "+
		"ends TLS, or is hostile. Have TLS pass through to the Router by its server name, or give up encryption from end to end (PlainText, --plain-text): %w", cause)}
}

// refusedInTLS reports whether a connection was refused before anything was sent.
func refusedInTLS(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// endKnown is how long it may take the server to know that a sandbox has ended.
const endKnown = 3 * time.Second

// askWhy finds out from the control plane what has become of a session whose
// encrypted connection broke: the Router cannot say so on it. again is true when
// the session has been woken and the request can be made once more.
func (c *Client) askWhy(ctx context.Context, in call, cause error) (again bool, _ error) {
	if ctx.Err() != nil || in.secure == nil {
		return false, cause
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](cause); ok {
		return false, notItsOwn(in.base, cause)
	}
	for broke := time.Now(); ; {
		info, err := c.GetSession(ctx, in.session)
		if errors.Is(err, ErrNotFound) {
			return false, err
		}
		if err != nil {
			return false, cause
		}
		why := became(info, in, cause)
		switch {
		case info.State == api.StatePaused && refusedInTLS(cause):
			// Why it is not woken, the answer to this says.
			err := c.resume(ctx, in.session)
			return err == nil, err
		case why != nil:
			if info.State == api.StateEnded {
				c.forget(in.secure)
			}
			return false, why
		case refusedInTLS(cause) || time.Since(broke) > endKnown:
			return false, cause
		}
		select {
		case <-time.After(endKnown / 20):
		case <-ctx.Done():
			return false, cause
		}
	}
}

// became is the error that tells what has become of a session, or nil when nothing
// explains that the request broke off.
func became(info api.Session, in call, cause error) error {
	switch {
	case info.State == api.StateEnded:
		return &APIError{
			Status: http.StatusGone, Code: api.CodeSessionEnded, Fate: info.Fate, Hint: info.Reason,
			Text: fmt.Sprintf("session %q has ended: %s", info.SessionID, info.Fate),
		}
	case info.State == api.StatePaused, info.ResumedAt != nil && info.ResumedAt.After(in.begun):
		return &APIError{Status: http.StatusConflict, Code: api.CodeSessionPaused, Text: "the session was paused while the request ran"}
	case refusedInTLS(cause) && strings.Contains(cause.Error(), "bad certificate"):
		return &APIError{Status: http.StatusUnauthorized, Code: api.CodeUnauthorized, Text: "the session is bound to another key"}
	}
	return nil
}

func (c *Client) resume(ctx context.Context, sessionID string) error {
	path, err := sessionPath(sessionID)
	if err != nil {
		return err
	}
	return c.sendJSON(ctx, call{method: http.MethodPost, base: c.manager, path: path + "/resume"}, nil)
}
