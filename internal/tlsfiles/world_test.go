package tlsfiles_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/tlsfiles"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guard keeps a broken test from hanging; no test waits for it.
const guard = time.Minute

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return (&authority{t: t, key: newKey(t)}).sign(nil)
}

// under makes an authority that a vouches for.
func (a *authority) under() *authority {
	a.t.Helper()
	return (&authority{t: a.t, key: newKey(a.t)}).sign(a)
}

// sign makes the certificate of a, which another authority signs, or a itself.
func (a *authority) sign(by *authority) *authority {
	a.t.Helper()
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if by == nil {
		by = a
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, by.cert, a.key.Public(), by.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return a
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

// issue makes a certificate with names, of which those with a scheme are URIs, for
// both ends of a connection but for what change does.
func (a *authority) issue(change func(*x509.Certificate), names ...string) pair {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	for _, name := range names {
		u, err := url.Parse(name)
		if err != nil {
			a.t.Fatal(err)
		}
		if u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if change != nil {
		change(template)
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// log is what was said.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *log) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(what))
}

// files are the files of one end, and what is made from them.
type files struct {
	*tlsfiles.Files
	dir string
	log *log
}

// newFiles writes files and opens them. Those without content there are not.
func newFiles(t *testing.T, own pair, ca []byte, peers ...tlsfiles.Peer) *files {
	t.Helper()
	f := &files{dir: t.TempDir(), log: &log{}}
	cfg := tlsfiles.Config{Peers: peers, Logger: f.log.logger()}
	if own.cert != nil {
		cfg.CertFile, cfg.KeyFile = filepath.Join(f.dir, "cert"), filepath.Join(f.dir, "key")
		write(t, cfg.CertFile, own.cert)
		write(t, cfg.KeyFile, own.key)
	}
	if ca != nil {
		cfg.CAFile = filepath.Join(f.dir, "ca")
		write(t, cfg.CAFile, ca)
	}
	f.Files = open(t, cfg)
	return f
}

func open(t *testing.T, cfg tlsfiles.Config) *tlsfiles.Files {
	t.Helper()
	f, err := tlsfiles.New(cfg)
	if err == nil {
		err = f.Open(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// serve answers each connection with one line, and returns the address.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(guard))
				_, _ = io.WriteString(tls.Server(conn, config), "hello\n")
			})
		}
	})
	return l.Addr().String()
}

func (f *files) serve(t *testing.T) string {
	t.Helper()
	config, err := f.Server("http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, config)
}

// connect returns how a connection to a server, called localhost, went: nil is that
// each end has taken the other for who it should be.
func connect(ctx context.Context, address string, config *tls.Config) (tls.ConnectionState, error) {
	config = config.Clone()
	config.ServerName = "localhost"
	d := tls.Dialer{Config: config, NetDialer: &net.Dialer{Timeout: guard}}
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer raw.Close()
	conn, _ := raw.(*tls.Conn)
	line, err := bufio.NewReader(conn).ReadString('\n') // a server's refusal comes here
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("the server says %q", line)
	}
	return conn.ConnectionState(), err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never happened: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
