package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// TestServedWithTLS: the SDKs' sessions are encrypted from end to end also where the
// server has TLS of its own, and fail, with the cause, where somebody ends it in between.
func TestServedWithTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := servedCertificate(t)
	srv := stoppedServer(t, "--tls-cert-file", cert, "--tls-key-file", key)
	srv.restart(t)
	srv.url = "https://" + srv.addr
	to, err := url.Parse(srv.url)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	// The client that makes connections by itself trusts what the machine does: its
	// control plane is reached through here.
	manager := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
	t.Cleanup(manager.Close)
	// It sees the hellos, which are not encrypted, and nothing else.
	way := newTap(t, srv.addr)
	connect := func(router string, plain *http.Client) *client.Client {
		c, err := client.New(client.Config{WorkloadManagerURL: manager.URL, RouterURL: router, LocalToken: srv.token, HTTPClient: plain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}

	c := connect("https://"+way.Addr().String(), nil)
	s := create(t, c, client.CreateOptions{})
	if got := output(t, s, "echo encrypted"); got != "encrypted\n" {
		t.Errorf("output %q", got)
	}
	if !way.saw(s.Info.Secure.ServerName) {
		t.Error("the session was not reached by its name")
	}
	rec, err := s.AuditRecord(t.Context(), 0)
	if err != nil || len(rec.Entries) == 0 {
		t.Errorf("what the agent recorded as encrypted: %+v, %v", rec, err)
	}
	discard(t, s)

	// The server's own TLS goes on being there for others.
	plain := create(t, connect(srv.url, &http.Client{Transport: transport}), client.CreateOptions{})
	if got := output(t, plain, "echo signed"); got != "signed\n" {
		t.Errorf("output %q", got)
	}
	discard(t, plain)

	between := endsTLS(t, cert, key, srv.addr, transport.TLSClientConfig)
	ended := create(t, connect("https://"+between, nil), client.CreateOptions{})
	_, err = ended.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}})
	if !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "ends TLS, or is hostile") {
		t.Errorf("with TLS ended in between: %v", err)
	}
	discard(t, ended)

	script := `
import os, sys
from agentcube import APIConnectionError, CodeInterpreterClient
manager, router, between, token, os.environ["SSL_CERT_FILE"] = sys.argv[1:]
def client(router):
    return CodeInterpreterClient(workload_manager_url=manager, router_url=router, auth_token=token)
with client(router) as c:
    print(c.execute_command("echo encrypted").strip(), len(c.audit_record().entries) > 0)
with client(between) as c:
    try:
        c.execute_command("true")
    except APIConnectionError as error:
        print("ends TLS, or is hostile" in str(error))
`
	if got := srv.python(t, env.python, t.TempDir(), "-c", script, srv.url, srv.url, "https://"+between, srv.token, cert); got != "encrypted True\nTrue\n" {
		t.Errorf("the Python SDK printed %q", got)
	}
}

// endsTLS is what ends TLS in front of a server, with a certificate that is good for it.
func endsTLS(t *testing.T, cert, key, to string, trust *tls.Config) (addr string) {
	t.Helper()
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				up, err := tls.Dial("tcp", to, trust)
				if err != nil {
					return
				}
				defer up.Close()
				go func() {
					defer up.Close()
					_, _ = io.Copy(up, conn)
				}()
				_, _ = io.Copy(conn, up)
			}()
		}
	}()
	return l.Addr().String()
}

// servedCertificate is one for this machine, in files, and who trusts it.
func servedCertificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile, roots = dir+"/tls.crt", dir+"/tls.key", x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots.AppendCertsFromPEM(text)
	if err := errors.Join(os.WriteFile(certFile, text, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, roots
}
