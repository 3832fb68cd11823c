package picod

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
)

// serveSecurely serves a session over both plain text and TLS, and returns the address
// and the certificate.
func serveSecurely(t *testing.T, edit func(*Config)) (addr, certificate string, b *box) {
	t.Helper()
	b = bootstrap(t, edit)
	body := `{"sessionId":"s1"}`
	got := b.initialize(jwt.MapClaims{"body_sha256": hashOf([]byte(body))}, body)
	certificate, _ = got.json(t)["certificate"].(string)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), certificate, b
}

func secureClient(t *testing.T, addr, certificate string, key *rsa.PrivateKey, http2 bool) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			RootCAs: roots, ServerName: api.SecureName("s1"), MinVersion: tls.VersionTLS13,
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
		ForceAttemptHTTP2: http2,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: guard}
}

// TestTLS: the address speaks both, and in TLS with the holder of the key alone.
func TestTLS(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	for _, http2 := range []bool{false, true} {
		c := secureClient(t, addr, certificate, b.key, http2)
		resp, err := c.Get("https://" + api.SecureName("s1") + "/health")
		if err != nil {
			t.Errorf("HTTP/2 %v: %v", http2, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || (resp.ProtoMajor == 2) != http2 {
			t.Errorf("HTTP/2 %v: %d over %s", http2, resp.StatusCode, resp.Proto)
		}
	}
	if _, err := secureClient(t, addr, certificate, bootstrapKey(), false).Get("https://" + api.SecureName("s1") + "/health"); err == nil {
		t.Error("another key was let in")
	}
	resp, err := http.Get("http://" + addr + "/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
