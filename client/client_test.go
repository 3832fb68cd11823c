package client

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
)

// recorded is one request as a server saw it.
type recorded struct {
	method, uri string
	header      http.Header
	body        []byte
	length      int64
}

// server answers every request by the next handler and keeps what it got.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []recorded
}

func serve(t *testing.T, answers ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			// The client sent less than it said.
			return
		}
		s.mu.Lock()
		i := len(s.seen)
		s.seen = append(s.seen, recorded{r.Method, r.RequestURI, r.Header.Clone(), body, r.ContentLength})
		s.mu.Unlock()
		if i >= len(answers) {
			t.Errorf("unexpected request %d: %s %s", i, r.Method, r.RequestURI)
			w.WriteHeader(http.StatusTeapot)
			return
		}
		answers[i](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) request(i int) recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[i]
}

func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func connect(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const created = `{"kind":"Sandbox","sessionId":"abc","entryPoints":[],
	"session":{"sessionId":"abc","kind":"CodeInterpreter","namespace":"default","name":"simple-codeinterpreter","auth":"client-key"}}`

// sentKey is the key in a create request.
func sentKey(t *testing.T, encoded string) any {
	t.Helper()
	text, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatalf("public key is not unpadded base64: %v", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		t.Fatalf("public key is not a PEM block: %q", text)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestKeyBoundSessionSignsEveryRequest(t *testing.T) {
	srv := serve(t,
		reply(200, created),
		reply(200, `{"exit_code":3,"stdout":"out","stderr":"\ufffd","stderr_base64":"/w==","stdout_truncated":true,"duration":0.25,"start_error":"other"}`),
		reply(200, `{"files":[]}`),
		reply(200, `{"path":"a b","size":2,"mode":"-rwx------"}`),
		reply(200, `{"message":"ok"}`),
	)
	c := connect(t, Config{BaseURL: srv.URL, Token: "tok"})
	ctx := t.Context()
	s, err := c.CreateSession(ctx, CreateOptions{TTL: time.Minute, IdempotencyKey: "k1", Metadata: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Execute(ctx, ExecRequest{Command: []string{"false", "ü"}, Timeout: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 3 || string(res.Stdout) != "out" || !bytes.Equal(res.Stderr, []byte{0xff}) ||
		!res.StdoutTruncated || res.StderrTruncated || res.Duration != 250*time.Millisecond || res.StartError != StartOther {
		t.Errorf("result %+v", res)
	}
	if _, err := s.ListFiles(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Upload(ctx, "a b", strings.NewReader("hi"), UploadOptions{Mode: 0o700, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx); err != nil {
		t.Fatal(err)
	}

	create := srv.request(0)
	if got := create.header.Get("Authorization"); got != "Bearer tok" {
		t.Errorf("create: Authorization %q", got)
	}
	if got := create.header.Get(api.HeaderIdempotencyKey); got != "k1" {
		t.Errorf("create: idempotency key %q", got)
	}
	var body api.CreateRequest
	if err := json.Unmarshal(create.body, &body); err != nil {
		t.Fatal(err)
	}
	if body.Name != "simple-codeinterpreter" || body.Namespace != "default" || body.TTL != 60 || body.Metadata["a"] != "b" {
		t.Errorf("create body %+v", body)
	}
	pub := sentKey(t, body.PublicKey)

	root := "/v1/namespaces/default/code-interpreters/simple-codeinterpreter/invocations/"
	for i, want := range []struct {
		uri   string
		bound bool
	}{1: {root + "api/execute", true}, 2: {root + "api/files?path=.", false}, 3: {root + "api/files", false}} {
		if i == 0 {
			continue
		}
		got := srv.request(i)
		if got.uri != want.uri {
			t.Errorf("request %d: %s, want %s", i, got.uri, want.uri)
		}
		if got.header.Get(api.HeaderSessionID) != "abc" {
			t.Errorf("request %d: no session header", i)
		}
		claims := jwt.MapClaims{}
		raw := strings.TrimPrefix(got.header.Get("Authorization"), "Bearer ")
		if _, err := jwt.ParseWithClaims(raw, claims, func(*jwt.Token) (any, error) { return pub, nil },
			jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer("sdk-client"), jwt.WithExpirationRequired()); err != nil {
			t.Errorf("request %d: token: %v", i, err)
		}
		if claims["exp"].(float64)-claims["iat"].(float64) != 300 {
			t.Errorf("request %d: claims %v", i, claims)
		}
		sum := sha256.Sum256(got.body)
		hash, ok := claims["body_sha256"]
		if ok != want.bound || ok && hash != hex.EncodeToString(sum[:]) {
			t.Errorf("request %d: body_sha256 %v", i, hash)
		}
	}
	if got := string(srv.request(1).body); got != `{"command":["false","ü"],"timeout":"1.5s"}` {
		t.Errorf("execute body %s", got)
	}
	if up := srv.request(3); up.length != int64(len(up.body)) {
		t.Errorf("upload: content length %d of %d bytes", up.length, len(up.body))
	}
	if del := srv.request(4); del.method != "DELETE" || del.uri != "/v1/sessions/abc" || del.header.Get("Authorization") != "Bearer tok" {
		t.Errorf("delete: %s %s", del.method, del.uri)
	}
}

func TestLocalTokenStaysOnThisMachine(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{LocalToken: "l"}, "l"},
		{Config{BaseURL: "http://127.0.0.1:1", LocalToken: "l"}, "l"},
		{Config{BaseURL: "http://[::1]:1", LocalToken: "l"}, "l"},
		{Config{BaseURL: "http://[::ffff:127.0.0.1]", LocalToken: "l"}, "l"},
		{Config{BaseURL: "http://localhost.example.org", LocalToken: "l"}, ""},
		{Config{BaseURL: "http://127.0.0.1.example.org", LocalToken: "l"}, ""},
		{Config{BaseURL: "http://192.0.2.1", LocalToken: "l"}, ""},
		{Config{BaseURL: "http://192.0.2.1", Token: "t", LocalToken: "l"}, "t"},
		{Config{Token: "t", LocalToken: "l"}, "t"},
	} {
		c := connect(t, tt.cfg)
		if got, err := c.bearer(c.manager); err != nil || got != tt.want {
			t.Errorf("%+v: token %q, %v, want %q", tt.cfg, got, err, tt.want)
		}
	}
}

func TestAttach(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	session := func(auth string) string {
		return `{"sessionId":"abc","kind":"AgentRuntime","namespace":"n s","name":"a/b","auth":"` + auth + `"}`
	}
	srv := serve(t, reply(200, session("managed")), reply(200, `{"files":[]}`),
		reply(200, session("managed")), reply(200, session("client-key")), reply(200, session("client-key")))
	c := connect(t, Config{BaseURL: srv.URL, LocalToken: "loc"})
	s, err := c.Attach(t.Context(), "abc", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ListFiles(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if got := srv.request(1); got.uri != "/v1/namespaces/n%20s/agent-runtimes/a%2Fb/invocations/api/files?path=x" ||
		got.header.Get("Authorization") != "Bearer loc" {
		t.Errorf("managed request %s, Authorization %q", got.uri, got.header.Get("Authorization"))
	}
	if _, err := c.Attach(t.Context(), "abc", key); err == nil {
		t.Error("attached to a managed session with a key")
	}
	if _, err := c.Attach(t.Context(), "abc", nil); err == nil {
		t.Error("attached to a key-bound session without a key")
	}
	if _, err := c.Attach(t.Context(), "abc", key); err != nil {
		t.Error(err)
	}
}

func TestListQuery(t *testing.T) {
	srv := serve(t, reply(200, `{"sessions":[],"nextPageToken":"n"}`), reply(200, `{"sessions":[]}`))
	c := connect(t, Config{BaseURL: srv.URL + "/prefix/"})
	page, err := c.ListSessions(t.Context(),
		ListOptions{States: []api.State{api.StateRunning, api.StatePaused}, Limit: 5, PageToken: "p=1"})
	if err != nil || page.NextPageToken != "n" {
		t.Fatalf("page %+v, %v", page, err)
	}
	if got, want := srv.request(0).uri, "/prefix/v1/sessions?limit=5&pageToken=p%3D1&state=running&state=paused"; got != want {
		t.Errorf("uri %s, want %s", got, want)
	}
	if _, err := c.ListSessions(t.Context(), ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := srv.request(1).uri, "/prefix/v1/sessions"; got != want {
		t.Errorf("uri %s, want %s", got, want)
	}
}
