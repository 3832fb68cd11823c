package picod

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/picod/token"
)

// TestTokensTwice: of two tokens none counts, as somebody before PicoD may have looked
// at the other one.
func TestTokensTwice(t *testing.T) {
	b := start(t, nil)
	good := b.bearer(nil)["Authorization"]
	for _, values := range [][]string{{good, good}, {good, "Bearer x"}, {"Bearer x", good}, {"", good}, {good, ""}} {
		req, err := http.NewRequest(http.MethodGet, b.url+"/api/files?path=.", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Authorization"] = values
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%.20q is answered %d", values, resp.StatusCode)
		}
	}
}

// TestTLSPeers: what PicoD does not agree to in a handshake.
func TestTLSPeers(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	good := secureClient(t, addr, certificate, b.key, false).Transport.(*http.Transport).TLSClientConfig
	for name, tt := range map[string]struct {
		change func(*tls.Config)
		want   string // in the error; "": none
	}{
		"the creator":      {func(*tls.Config) {}, ""},
		"an older version": {func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, "protocol version"},
		"no certificate":   {func(c *tls.Config) { c.Certificates = nil }, "certificate required"},
	} {
		cfg := good.Clone()
		tt.change(cfg)
		err := sayHello(addr, cfg)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// sayHello makes a connection and one request on it.
func sayHello(addr string, cfg *tls.Config) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: guard}, "tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(guard))
	if _, err := fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", api.SecureName("s1")); err != nil {
		return err
	}
	_, err = io.ReadAll(conn)
	return err
}

// TestTLSOfFormerSession: a connection that was made to the session that the sandbox
// had before carries no request to the one that it has now, whoever signed it.
func TestTLSOfFormerSession(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	cfg := secureClient(t, addr, certificate, b.key, false).Transport.(*http.Transport).TLSClientConfig
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: guard}, "tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(guard))
	answers := bufio.NewReader(conn)
	list := func() (int, string) {
		t.Helper()
		signed := b.bearer(bound("GET", "/api/files?path=.", nil))["Authorization"]
		if _, err := fmt.Fprintf(conn, "GET /api/files?path=. HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", signed); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if status, text := list(); status != http.StatusOK {
		t.Fatalf("its own session: %d %s", status, text)
	}
	if err := b.srv.gate.Assume(token.Identity{Bootstrap: &bootstrapKey().PublicKey}); err != nil {
		t.Fatal(err)
	}
	if got := b.initialize(jwt.MapClaims{"session_public_key": rawKey(t, &routerKey().PublicKey)}, ""); got.StatusCode != http.StatusOK {
		t.Fatalf("init: %s", got.body)
	}
	b.key = routerKey()
	if status, text := list(); status != http.StatusUnauthorized || !strings.Contains(text, "not of the session's key") {
		t.Errorf("the next session: %d %s", status, text)
	}
}

// TestReplaceFileFollowsNoLink: user code, where it is root, can leave what it likes
// where PicoD is about to write.
func TestReplaceFileFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	name, secret := filepath.Join(dir, "machine-id"), filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{name, name + ".picod"} {
		_ = os.Remove(name)
		if err := os.Symlink(secret, link); err != nil {
			t.Fatal(err)
		}
		if err := replaceFile(name, "new"); err != nil {
			t.Error(err)
		}
		kept, err := os.ReadFile(secret)
		if text, readErr := os.ReadFile(name); err != nil || readErr != nil || !bytes.Equal(kept, []byte("secret")) || string(text) != "new" {
			t.Errorf("through %s: the secret is %q, the file %q (%v, %v)", filepath.Base(link), kept, text, err, readErr)
		}
	}
}
