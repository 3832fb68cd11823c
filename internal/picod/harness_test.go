package picod

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
)

// guard is how long a test waits for something that must happen at all.
const guard = 30 * time.Second

func TestMain(m *testing.M) { guardtest.Main(m) }

// shared keys: making one takes a while.
var (
	routerKey    = sync.OnceValue(func() *rsa.PrivateKey { return mustKey() })
	bootstrapKey = sync.OnceValue(func() *rsa.PrivateKey { return mustKey() })
	sessionKey   = sync.OnceValue(func() *rsa.PrivateKey { return mustKey() })
)

func mustKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

// publicPEM is the key as clients send it.
func publicPEM(t testing.TB, key *rsa.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// sign makes a token that is valid for five minutes, with claims on top; a nil
// claim takes the default away.
func sign(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"iss": "sdk-client", "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix()}
	maps.Copy(all, claims)
	for name, value := range all {
		if value == nil {
			delete(all, name)
		}
	}
	token, err := jwt.NewWithClaims(method, all).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// box is a running server and what a test needs to talk to it.
type box struct {
	t     testing.TB
	srv   *Server
	url   string
	dir   string // the workspace
	key   *rsa.PrivateKey
	http  *http.Client
	close func()
}

// start serves a temporary workspace, router-signed unless edit says otherwise.
func start(t testing.TB, edit func(*Config)) *box {
	t.Helper()
	cfg := DefaultConfig()
	// The workspace is below a directory that every user may pass through.
	base, err := os.MkdirTemp("/tmp", "picod-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	cfg.Workspace = filepath.Join(base, "workspace")
	cfg.CgroupDir = ""
	cfg.RouterKey = &routerKey().PublicKey
	cfg.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "FROM_DAEMON=yes"}
	if edit != nil {
		edit(&cfg)
	}
	srv, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Open(); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(srv.Handler())
	transport := &http.Transport{DisableCompression: true}
	b := &box{t: t, srv: srv, url: web.URL, dir: cfg.Workspace, key: routerKey(), http: &http.Client{
		Transport: transport, Timeout: guard,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	b.close = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		web.Close()
		srv.Close()
	})
	t.Cleanup(b.close)
	return b
}

// reply is an answer that was read to its end.
type reply struct {
	*http.Response
	body []byte
}

func (r reply) json(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("answer %d is not JSON: %q", r.StatusCode, r.body)
	}
	return m
}

// send makes one request with the given headers and nothing else.
func (b *box) send(method, path string, headers map[string]string, body io.Reader) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, b.url+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply{resp, text}
}

// bearer is a fresh token in its header.
func (b *box) bearer(claims jwt.MapClaims) map[string]string {
	return map[string]string{"Authorization": "Bearer " + sign(b.t, jwt.SigningMethodRS256, b.key, claims)}
}

// post sends JSON with a token bound to it.
func (b *box) post(path string, body any) reply {
	b.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.send("POST", path, b.bearer(jwt.MapClaims{"body_sha256": hashOf(text)}), bytes.NewReader(text))
}

func (b *box) get(path string) reply {
	b.t.Helper()
	return b.send("GET", path, b.bearer(nil), nil)
}

// result is what execute answers.
type result struct {
	executeResponse
	raw map[string]any
}

func (b *box) execute(body map[string]any) result {
	b.t.Helper()
	got := b.post("/api/execute", body)
	if got.StatusCode != 200 {
		b.t.Fatalf("execute: %d %s", got.StatusCode, got.body)
	}
	var r result
	if err := json.Unmarshal(got.body, &r.executeResponse); err != nil {
		b.t.Fatal(err)
	}
	r.raw = got.json(b.t)
	return r
}

func (b *box) shell(script string) result {
	b.t.Helper()
	return b.execute(map[string]any{"command": []string{"bash", "-c", script}, "timeout": "30s"})
}

// expect checks status, text (by its beginning) and reason of an error.
func (r reply) expect(t testing.TB, status int, text, reason string) {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", r.StatusCode, status, r.body)
	}
	m := r.json(t)
	if got, _ := m["error"].(string); !strings.HasPrefix(got, text) {
		t.Errorf("error %q, want %q", got, text)
	}
	if m["reason"] != reason {
		t.Errorf("reason %v, want %v", m["reason"], reason)
	}
	if id, _ := m["requestId"].(string); id == "" || id != r.Header.Get("X-Request-Id") {
		t.Errorf("request id %q, header %q", id, r.Header.Get("X-Request-Id"))
	}
	if status != http.StatusRequestEntityTooLarge && m["code"] != float64(status) {
		t.Errorf("code %v, want %d", m["code"], status)
	}
	if strings.Contains(string(r.body), "/tmp/picod-test") {
		t.Errorf("the answer names a path of the daemon: %s", r.body)
	}
}

func rawKey(t testing.TB, key *rsa.PublicKey) string {
	return base64.RawStdEncoding.EncodeToString([]byte(publicPEM(t, key)))
}
