package client

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// sandboxCertificate is one as PicoD makes it.
func sandboxCertificate(t *testing.T, session string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{api.SecureName(session)}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// impostor is a Router that answers in the place of a sandbox, and keeps what it
// could read.
type impostor struct {
	net.Listener
	tls *tls.Config // nil: it takes what comes in plain text

	mu   sync.Mutex
	read bytes.Buffer
}

func newImpostor(t *testing.T, cfg *tls.Config) *impostor {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := &impostor{Listener: l, tls: cfg}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { i.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return i
}

func (i *impostor) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if i.tls != nil {
		conn = tls.Server(conn, i.tls)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		i.mu.Lock()
		i.read.Write(buf[:n])
		i.mu.Unlock()
		if err != nil {
			return
		}
		switch {
		case n > 0 && strings.HasPrefix(string(buf[:n]), http.MethodPost):
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
			return
		case i.tls == nil:
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
	}
}

// controlPlane describes the session "abc" with a certificate, as often as it is asked.
func controlPlane(t *testing.T, certificate string) *server {
	t.Helper()
	info := api.Session{
		SessionID: "abc", Kind: api.KindCodeInterpreter, Namespace: "default", Name: DefaultTemplate, Auth: api.AuthClientKey, State: api.StateRunning,
		Secure: &api.Secure{ServerName: api.SecureName("abc"), Certificate: certificate},
	}
	answer := func(v any) http.HandlerFunc {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return reply(http.StatusOK, string(text))
	}
	answers := []http.HandlerFunc{answer(api.CreateResponse{Kind: "Sandbox", SessionID: "abc", Session: info})}
	for range 100 {
		answers = append(answers, answer(info))
	}
	return serve(t, answers...)
}

// TestHostileRouter: who carries the traffic of a session, and answers in the place of
// its sandbox, is not spoken to, and gets nothing to read.
func TestHostileRouter(t *testing.T) {
	t.Parallel()
	its, certificate := sandboxCertificate(t, "abc")
	own, _ := sandboxCertificate(t, "abc")
	for name, test := range map[string]struct {
		cfg *tls.Config
		ok  bool
	}{
		"the sandbox itself":        {&tls.Config{Certificates: []tls.Certificate{its}, ClientAuth: tls.RequireAnyClientCert}, true},
		"a certificate of its own":  {&tls.Config{Certificates: []tls.Certificate{own}}, false},
		"an older version":          {&tls.Config{Certificates: []tls.Certificate{its}, MaxVersion: tls.VersionTLS12}, false},
		"nothing but plain text":    {nil, false},
		"no certificate in the end": {&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }}, false},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+", "+scheme, func(t *testing.T) {
				t.Parallel()
				router := newImpostor(t, test.cfg)
				c := connect(t, Config{BaseURL: controlPlane(t, certificate).URL, RouterURL: scheme + "://" + router.Addr().String()})
				s, err := c.CreateSession(t.Context(), CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Execute(t.Context(), ExecRequest{Command: []string{"secret-command"}})
				router.mu.Lock()
				defer router.mu.Unlock()
				if got := strings.Contains(router.read.String(), "secret-command"); got != test.ok || (err == nil) != test.ok || !test.ok && strings.Contains(router.read.String(), "Bearer") {
					t.Errorf("error %v, command read: %v", err, got)
				}
				if name == "a certificate of its own" && (!errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "ends TLS, or is hostile")) {
					t.Errorf("error %v does not say what it means", err)
				}
			})
		}
	}
}

// TestUnreadableCertificate: a session that is said to be reached by TLS is not used
// without it.
func TestUnreadableCertificate(t *testing.T) {
	t.Parallel()
	for _, certificate := range []string{"", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		router := newImpostor(t, nil)
		c := connect(t, Config{BaseURL: controlPlane(t, certificate).URL, RouterURL: "http://" + router.Addr().String()})
		if s, err := c.CreateSession(t.Context(), CreateOptions{}); err == nil {
			_, err = s.Execute(t.Context(), ExecRequest{Command: []string{"true"}})
			t.Errorf("%q: a session is made, and used: %v", certificate, err)
		}
	}
}
