package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// certificateLife is far longer than any session's: a certificate is trusted
// because it is this one, and not for its dates.
const certificateLife = 10 * 365 * 24 * time.Hour

// newCertificate makes the key and certificate by which the holder of a session's
// key knows the session's PicoD. They live as long as the session, and in memory
// alone: also through a pause, and never in a copy.
func newCertificate(session string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "AgentCube session"},
		// The clocks of clients may be behind, by whatever.
		NotBefore: now.Add(-certificateLife), NotAfter: now.Add(certificateLife),
		DNSNames:              []string{api.SecureName(session)},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// CertificatePEM is the certificate of the session, or "" when there is none: PicoD
// is not initialised, or the Router signs for the session.
func (g *Gate) CertificatePEM() string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.certificate == nil {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.certificate.Certificate[0]}))
}

// Statements returns the session whose PicoD this is, and the key of its certificate,
// with which it signs what it says of its session. Without a certificate the key is nil.
func (g *Gate) Statements() (session string, key *ecdsa.PrivateKey) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.certificate == nil {
		return "", nil
	}
	key, _ = g.certificate.PrivateKey.(*ecdsa.PrivateKey)
	return g.session.ID, key
}

// SealPurpose is the purpose claim of tokens with which the control plane asks for a
// statement.
const SealPurpose = "sandbox_seal"

// CheckSeal verifies the Authorization header of who asks for a statement.
func (g *Gate) CheckSeal(header string) error {
	now := g.known()
	if now.cfg.Bootstrap == nil {
		return ErrNoBootstrap
	}
	if now.session == nil {
		return ErrNotInitialized
	}
	claims, err := g.verify(header, now.cfg.Bootstrap)
	switch {
	case err != nil:
		return err
	case claims.text("purpose") != SealPurpose:
		return invalid("token is for another purpose")
	case claims.text("sandboxId") != now.cfg.SandboxID || claims.text("sessionId") != now.session.ID:
		return invalid("token is for another sandbox")
	}
	return nil
}

// TLS is how connections to this PicoD are encrypted: TLS 1.3, with the session's
// certificate at this end and one of the session's key at the other. Nobody is let
// in before there is a session of a client's key.
func (g *Gate) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			g.mu.RLock()
			defer g.mu.RUnlock()
			if g.certificate == nil || g.key == nil {
				return nil, ErrNotInitialized
			}
			key := g.key
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{*g.certificate},
				NextProtos:   []string{"h2", "http/1.1"},
				ClientAuth:   tls.RequireAnyClientCert,
				// Whose key it is, is all that counts; a session that goes on after a
				// pause begins with a new handshake.
				SessionTicketsDisabled: true,
				// Small records first are for slow networks.
				DynamicRecordSizingDisabled: true,
				VerifyConnection: func(state tls.ConnectionState) error {
					return checkPeer(&state, key)
				},
			}, nil
		},
	}
}

// CheckPeer refuses a connection that was made to the sandbox when it had another
// session.
func (g *Gate) CheckPeer(state *tls.ConnectionState) error {
	if err := checkPeer(state, g.known().signer()); err != nil {
		return invalid(err.Error())
	}
	return nil
}

func checkPeer(state *tls.ConnectionState, key *rsa.PublicKey) error {
	if key == nil || len(state.PeerCertificates) == 0 {
		return errors.New("no certificate of the session's key")
	}
	peer, ok := state.PeerCertificates[0].PublicKey.(*rsa.PublicKey)
	if !ok || !key.Equal(peer) {
		return errors.New("the certificate is not of the session's key")
	}
	return nil
}
