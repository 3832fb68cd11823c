package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
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
	"github.com/volcano-sh/agentcube/client"
)

// tap is somebody on the way who sees all bytes, and may change them.
type tap struct {
	net.Listener
	to string

	mu   sync.Mutex
	seen bytes.Buffer
	edit func(fromClient bool, p []byte)
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.carry(conn)
		}
	}()
	return p
}

func (p *tap) carry(conn net.Conn) {
	defer conn.Close()
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer up.Close()
	pass := func(to io.WriteCloser, from io.Reader, fromClient bool) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			if p.edit != nil && n > 0 {
				p.edit(fromClient, buf[:n])
			}
			p.mu.Unlock()
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go pass(up, conn, true)
	pass(conn, up, false)
}

func (p *tap) saw(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.seen.Bytes(), []byte(text))
}

func (p *tap) change(edit func(fromClient bool, p []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit = edit
}

// secureClient reaches the control plane directly and sessions through a tap.
func secureClient(t *testing.T) (*client.Client, *tap) {
	t.Helper()
	at := at(t)
	p := newTap(t, at.router(t))
	c, err := client.New(client.Config{WorkloadManagerURL: at.Manager, RouterURL: "http://" + p.Addr().String(), Token: at.Token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, p
}

// TestEndToEnd: what a session does is for nobody on the way to see or to change,
// and all else is as it is in plain text.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	c, p := secureClient(t)
	s := create(t, c, client.CreateOptions{})
	if s.Info.Secure == nil || s.Info.Secure.ServerName != api.SecureName(s.ID) {
		t.Fatalf("the session offers %+v", s.Info.Secure)
	}
	content := bytes.Repeat([]byte("content-of-the-file "), 1<<18) // 5 MiB
	if err := s.WriteFile(t.Context(), "a b.txt", content); err != nil {
		t.Fatal(err)
	}
	if got := output(t, s, "echo secret-output; wc -c <'a b.txt'"); got != "secret-output\n5242880\n" {
		t.Errorf("output %q", got)
	}
	r, _, err := s.Download(t.Context(), "a b.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if r.Close(); err != nil || !bytes.Equal(got, content) {
		t.Errorf("downloaded %d bytes, %v", len(got), err)
	}
	for _, secret := range []string{"secret-output", "content-of-the-file", "Bearer", "api/execute"} {
		if p.saw(secret) {
			t.Errorf("%q was seen on the way", secret)
		}
	}
	// A paused session is woken, and the answer to one that has ended says so.
	at(t).pause(t, s)
	if got := output(t, s, "echo awake"); got != "awake\n" {
		t.Errorf("after a pause: %q", got)
	}
	forks, err := s.Fork(t.Context(), 1, client.ForkOptions{})
	if at(t).wantSleep(t, err) {
		if a, b := s.Info.Secure.Certificate, forks[0].Info.Secure.Certificate; a == b {
			t.Error("a fork has the certificate of its parent")
		}
		if got := output(t, forks[0], "wc -c <'a b.txt'"); got != "5242880\n" {
			t.Errorf("the fork has %q", got)
		}
		discard(t, forks[0])
	}
	discard(t, s)
	_, err = s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}})
	var ended *client.APIError
	if !errors.As(err, &ended) || !errors.Is(err, client.ErrSessionEnded) || ended.Fate != api.FateDeleted {
		t.Errorf("a session that has ended: %v", err)
	}
}

// TestEndToEndChanged: bytes that are changed on the way break the connection, and
// nothing is executed.
func TestEndToEndChanged(t *testing.T) {
	t.Parallel()
	c, p := secureClient(t)
	s := create(t, c, client.CreateOptions{})
	output(t, s, "echo first > mark")
	p.change(func(fromClient bool, b []byte) {
		if fromClient {
			b[len(b)-1] ^= 1
		}
	})
	if _, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"sh", "-c", "echo second >> mark"}}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("a request that was changed: %v", err)
	}
	p.change(nil)
	if got := output(t, s, "cat mark"); got != "first\n" {
		t.Errorf("was executed: %q", got)
	}
	discard(t, s)
}

// TestEndToEndPeers: the two ends know each other by the session's key and the
// certificate that its creator was given, and nobody else.
func TestEndToEndPeers(t *testing.T) {
	t.Parallel()
	at := at(t)
	c := at.client(t)
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, other := create(t, c, client.CreateOptions{Key: key}), create(t, c, client.CreateOptions{})
	for name, tt := range map[string]struct {
		key     *rsa.PrivateKey
		name    string
		trusted string
		max     uint16
		want    string // in the error; "": none
	}{
		"the creator":         {key, s.Info.Secure.ServerName, s.Info.Secure.Certificate, 0, ""},
		"no key":              {nil, s.Info.Secure.ServerName, s.Info.Secure.Certificate, 0, "certificate required"},
		"another key":         {mustKey(t), s.Info.Secure.ServerName, s.Info.Secure.Certificate, 0, "bad certificate"},
		"another session":     {key, other.Info.Secure.ServerName, other.Info.Secure.Certificate, 0, "bad certificate"},
		"another certificate": {key, s.Info.Secure.ServerName, other.Info.Secure.Certificate, 0, "certificate"},
		"no such session":     {key, api.SecureName("none"), s.Info.Secure.Certificate, 0, "unrecognized name"},
		"another name":        {key, "localhost", s.Info.Secure.Certificate, 0, "unrecognized name"},
		"TLS 1.2":             {key, s.Info.Secure.ServerName, s.Info.Secure.Certificate, tls.VersionTLS12, "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			err := handshake(t, at.router(t), tt.key, tt.name, tt.trusted, tt.max)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	managed := create(t, c, client.CreateOptions{Managed: true})
	if managed.Info.Secure != nil {
		t.Errorf("a managed session offers %+v", managed.Info.Secure)
	}
	if err := handshake(t, at.router(t), key, api.SecureName(managed.ID), s.Info.Secure.Certificate, 0); err == nil {
		t.Error("a managed session speaks TLS")
	}
	for _, session := range []*client.Session{s, other, managed} {
		discard(t, session)
	}
}

func mustKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// handshake asks for the health of a sandbox over TLS.
func handshake(t *testing.T, addr string, key *rsa.PrivateKey, name, trusted string, highest uint16) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(trusted))
	cfg := &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12, MaxVersion: highest}
	if key != nil {
		cfg.Certificates = []tls.Certificate{selfSigned(t, key)}
	}
	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{
			TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: http2,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: patience}).DialContext(ctx, network, addr)
			},
		}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + name + "/health")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || http2 != (resp.ProtoMajor == 2) {
			t.Errorf("health: %d over %s", resp.StatusCode, resp.Proto)
		}
	}
	return nil
}

// TestEndToEndIdle: a connection that is kept open without use keeps no session
// awake, and a command that says nothing does.
func TestEndToEndIdle(t *testing.T) {
	t.Parallel()
	at := at(t)
	c := at.client(t)
	s := create(t, c, client.CreateOptions{Template: "short-idle"}) // 6 s
	if got := output(t, s, "sleep 9; echo done"); got != "done\n" {
		t.Errorf("a silent command: %q", got)
	}
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
		info, err := c.GetSession(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if info.State == api.StateEnded {
			if info.Fate != api.FateIdle {
				t.Errorf("fate %s", info.Fate)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an idle connection keeps its session awake")
		}
	}
}

func selfSigned(t *testing.T, key *rsa.PrivateKey) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
