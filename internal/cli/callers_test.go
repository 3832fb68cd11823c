package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/remote"
)

// certificate makes one of localhost, which vouches for itself, and its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err1 := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	private, err2 := x509.MarshalPKCS8PrivateKey(key)
	certFile, keyFile = filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	err = errors.Join(err1, err2,
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

// configured is a server with settings, as the environment has them, and its log.
func configured(t *testing.T, settings ...string) (*server, *bytes.Buffer) {
	t.Helper()
	cfg := config.New(append(settings, "HOME="+t.TempDir()))
	if err := errors.Join(cfg.Load(), cfg.Validate()); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	return &server{cfg: cfg, log: slog.New(slog.NewTextHandler(&logged, nil)), web: &httpserve.Server{Addr: cfg.Listen}}, &logged
}

// TestUpKnowsOpenID: with a provider in the settings its tokens are taken, beside those
// of before, and it need not be there.
func TestUpKnowsOpenID(t *testing.T) {
	certFile, keyFile := certificate(t)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key := authtest.NewKey()
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	var issuer string
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": issuer + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{
			{"kty": "RSA", "n": number(key.N), "e": number(big.NewInt(int64(key.E)))},
		}})
	})
	provider := httptest.NewUnstartedServer(mux)
	provider.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	provider.StartTLS()
	defer provider.Close()
	_, port, _ := net.SplitHostPort(provider.Listener.Addr().String())
	issuer = "https://localhost:" + port
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": issuer, "sub": "jane", "aud": "cube", "exp": time.Now().Add(time.Hour).Unix(), "groups": []string{"users", "admins"},
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	settings := []string{
		"AGENTCUBE_OIDC_ISSUER=" + issuer, "AGENTCUBE_OIDC_AUDIENCE=cube", "AGENTCUBE_OIDC_ROLE_CLAIM=groups",
		"AGENTCUBE_OIDC_REQUIRED_ROLE=users", "AGENTCUBE_OIDC_ADMIN_ROLE=admins", "AGENTCUBE_OIDC_CA_FILE=" + certFile,
	}
	ask := func(token string, settings ...string) (who auth.Principal, logged string, err error) {
		s, log := configured(t, settings...)
		known, err := s.callers(t.Context(), "secret", auth.NewTokens(&authtest.TokenStore{}, nil))
		if err != nil {
			t.Fatal(err)
		}
		who, err = known.Authenticate((&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(t.Context()))
		return who, log.String(), err
	}
	if who, _, err := ask(token, settings...); err != nil || who != (auth.Principal{Name: "oidc:jane", Scopes: auth.AllScopes}) {
		t.Errorf("%+v, %v", who, err)
	}
	if who, _, err := ask("secret", settings...); err != nil || who.Name != auth.LocalName {
		t.Errorf("the local token: %+v, %v", who, err)
	}
	if who, _, err := ask(token); err == nil {
		t.Errorf("without a provider in the settings: %+v", who)
	}
	provider.Close()
	_, logged, err := ask(token, settings...)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Status != http.StatusServiceUnavailable || !strings.Contains(logged, "OpenID provider not reached") {
		t.Errorf("without the provider: %v, and it is logged: %s", err, logged)
	}
}

// serving serves with the TLS of the settings, and returns its address by a name.
func serving(t *testing.T, settings ...string) (url string) {
	t.Helper()
	s, _ := configured(t, append(settings, "AGENTCUBE_LISTEN=127.0.0.1:0")...)
	var err error
	if s.web.TLS, err = servedTLS(t.Context(), s.cfg, s.log); err != nil {
		t.Fatal(err)
	}
	s.web.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })
	if err := s.web.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.web.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.url()
}

// get returns whether a server answers.
func get(t *testing.T, url string, transport *http.Transport) error {
	t.Helper()
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get(url)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

// TestServedTLS: with a certificate in the settings, clients who trust it are served,
// and where they need one, those whose it is.
func TestServedTLS(t *testing.T) {
	certFile, keyFile := certificate(t)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	own := []string{"AGENTCUBE_TLS_CERT_FILE=" + certFile, "AGENTCUBE_TLS_KEY_FILE=" + keyFile}
	clients := func(name string) []string {
		return append(own[:2:2], "AGENTCUBE_TLS_CLIENT_CA_FILE="+certFile, "AGENTCUBE_TLS_CLIENT_NAMES="+name)
	}
	for name, test := range map[string]struct {
		settings []string
		shown    []tls.Certificate
		ok       bool
	}{
		"without clients' certificates": {own, nil, true},
		"with a client's":               {clients("localhost"), []tls.Certificate{cert}, true},
		"with another client's":         {clients("router"), []tls.Certificate{cert}, false},
		"with none":                     {clients("localhost"), nil, false},
	} {
		url := serving(t, test.settings...)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: test.shown, MinVersion: tls.VersionTLS13}}
		if err := get(t, url, transport); (err == nil) != test.ok || !strings.HasPrefix(url, "https://localhost:") {
			t.Errorf("%s: %s: %v", name, url, err)
		}
	}
}

// TestManagerTLS: the Router shows the Workload Manager who it is, and wants to know
// whom it speaks to, as the settings say.
func TestManagerTLS(t *testing.T) {
	certFile, keyFile := certificate(t)
	url := serving(t, "AGENTCUBE_TLS_CERT_FILE="+certFile, "AGENTCUBE_TLS_KEY_FILE="+keyFile,
		"AGENTCUBE_TLS_CLIENT_CA_FILE="+certFile, "AGENTCUBE_TLS_CLIENT_NAMES=localhost")
	const manager = "AGENTCUBE_WORKLOAD_MANAGER_"
	trust, shown := manager+"CA_FILE="+certFile, []string{manager + "CERT_FILE=" + certFile, manager + "KEY_FILE=" + keyFile}
	for name, test := range map[string]struct {
		settings []string
		ok       bool
	}{
		"all that is needed":             {append(shown[:2:2], trust), true},
		"and the Workload Manager named": {append(shown[:2:2], trust, manager+"NAME=localhost"), true},
		"another one named":              {append(shown[:2:2], trust, manager+"NAME=other"), false},
		"nothing shown":                  {[]string{trust}, false},
		"its authority not known":        {shown, false},
	} {
		s, _ := configured(t, append(test.settings, manager+"URL="+url)...)
		secured, err := managerTLS(t.Context(), s.cfg, s.log)
		if err != nil {
			t.Fatal(err)
		}
		if err := get(t, url, remote.NewTransport(secured)); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, _ := configured(t)
	if secured, err := managerTLS(t.Context(), s.cfg, s.log); secured != nil || err != nil {
		t.Errorf("without settings: %v, %v", secured, err)
	}
}
