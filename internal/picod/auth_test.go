package picod

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestTokens holds the API to the order and texts of the contract.
func TestTokens(t *testing.T) {
	b := start(t, nil)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs := jwt.SigningMethodRS256
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := func(c jwt.MapClaims) string { return "Bearer " + sign(t, rs, routerKey(), c) }
	for _, tt := range []struct {
		name, header, text string // text "" means it is accepted
	}{
		{"no header", "", "Missing Authorization header"},
		{"other scheme", "Basic eDp5", "Invalid Authorization header format"},
		{"lower case", strings.Replace(good(nil), "Bearer", "bearer", 1), "Invalid Authorization header format"},
		{"two spaces", strings.Replace(good(nil), " ", "  ", 1), "Invalid Authorization header format"},
		{"three parts", good(nil) + " x", "Invalid Authorization header format"},
		{"no scheme", strings.TrimPrefix(good(nil), "Bearer "), "Invalid Authorization header format"},
		{"not a token", "Bearer x", "Invalid token"},
		{"none", "Bearer " + sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), "Invalid token"},
		{"HS256 with the public key", "Bearer " + sign(t, jwt.SigningMethodHS256, []byte(publicPEM(t, &routerKey().PublicKey)), nil), "Invalid token"},
		{"ES256", "Bearer " + sign(t, jwt.SigningMethodES256, ec, nil), "Invalid token"},
		{"PS256", "Bearer " + sign(t, jwt.SigningMethodPS256, routerKey(), nil), "Invalid token"},
		{"RS256", good(nil), ""},
		{"RS384", "Bearer " + sign(t, jwt.SigningMethodRS384, routerKey(), nil), ""},
		{"RS512", "Bearer " + sign(t, jwt.SigningMethodRS512, routerKey(), nil), ""},
		{"other key", "Bearer " + sign(t, rs, sessionKey(), nil), "Invalid token"},
		{"changed signature", good(nil)[:len(good(nil))-8] + "AAAAAAAA", "Invalid token"},
		{"no exp", good(jwt.MapClaims{"exp": nil}), "Invalid token"},
		{"exp is text", good(jwt.MapClaims{"exp": "tomorrow"}), "Invalid token"},
		{"expired within leeway", good(jwt.MapClaims{"exp": at(-30 * time.Second)}), ""},
		{"expired", good(jwt.MapClaims{"exp": at(-90 * time.Second)}), "Invalid token"},
		{"long life", good(jwt.MapClaims{"exp": at(6 * time.Hour)}), ""},
		{"no iat", good(jwt.MapClaims{"iat": nil}), ""},
		{"iat within leeway", good(jwt.MapClaims{"iat": at(30 * time.Second)}), ""},
		{"iat in the future", good(jwt.MapClaims{"iat": at(90 * time.Second)}), "Invalid token"},
		{"nbf in the future", good(jwt.MapClaims{"nbf": at(90 * time.Second)}), "Invalid token"},
		{"any issuer and audience", good(jwt.MapClaims{"iss": 7, "aud": []string{"x"}, "sub": "y", "session_id": "z"}), ""},
		{"other body", good(jwt.MapClaims{"body_sha256": hashOf([]byte("other"))}), "Invalid token"},
		{"body hash in capitals", good(jwt.MapClaims{"body_sha256": strings.ToUpper(hashOf([]byte(`{"command":["true"]}`)))}), "Invalid token"},
		{"body hash is a number", good(jwt.MapClaims{"body_sha256": 7}), "Invalid token"},
		{"body hash is empty", good(jwt.MapClaims{"body_sha256": ""}), "Invalid token"},
		{"right body", good(jwt.MapClaims{"body_sha256": hashOf([]byte(`{"command":["true"]}`))}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			headers := map[string]string{}
			if tt.header != "" {
				headers["Authorization"] = tt.header
			}
			got := b.send("POST", "/api/execute", headers, strings.NewReader(`{"command":["true"]}`))
			if tt.text == "" {
				if got.StatusCode != 200 {
					t.Errorf("refused: %s", got.body)
				}
				return
			}
			reason := map[string]string{"Miss": "MISSING_TOKEN", "Inva": "INVALID_TOKEN"}[tt.text[:4]]
			if strings.Contains(tt.text, "format") {
				reason = "MALFORMED_TOKEN"
			}
			got.expect(t, 401, tt.text, reason)
			if detail, _ := got.json(t)["detail"].(string); tt.text == "Invalid token" && !strings.HasPrefix(detail, "JWT verification failed") {
				t.Errorf("detail is %q", detail)
			}
		})
	}
}

func TestEveryRouteNeedsToken(t *testing.T) {
	b := start(t, nil)
	for _, route := range []string{"POST /api/execute", "POST /api/files", "GET /api/files?path=.", "GET /api/files/x"} {
		method, path, _ := strings.Cut(route, " ")
		b.send(method, path, nil, nil).expect(t, 401, "Missing Authorization header", "MISSING_TOKEN")
		b.send(method, path, map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, nil).
			expect(t, 401, "Missing Authorization header", "MISSING_TOKEN")
	}
}

// TestRoutedTokens: a token of the Router opens one sandbox, once.
func TestRoutedTokens(t *testing.T) {
	b := start(t, func(c *Config) { c.SessionID = "mine" })
	try := func(c jwt.MapClaims) reply { return b.send("GET", "/api/files?path=.", b.bearer(c), nil) }
	try(nil).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	try(jwt.MapClaims{"session_id": "other"}).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	try(jwt.MapClaims{"session_id": "mine", "sid": "other"}).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	try(jwt.MapClaims{"session_id": "mine", "jti": 7}).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	for range 2 {
		if got := try(jwt.MapClaims{"session_id": "mine"}); got.StatusCode != 200 {
			t.Errorf("refused: %s", got.body)
		}
	}
	if got := try(jwt.MapClaims{"session_id": "mine", "jti": "a"}); got.StatusCode != 200 {
		t.Errorf("refused: %s", got.body)
	}
	try(jwt.MapClaims{"session_id": "mine", "jti": "a"}).expect(t, 401, "Invalid token", "INVALID_TOKEN")
}

// bootstrap starts an uninitialised server.
func bootstrap(t *testing.T, edit func(*Config)) *box {
	b := start(t, func(c *Config) {
		c.Bootstrap, c.RouterKey = &bootstrapKey().PublicKey, nil
		if edit != nil {
			edit(c)
		}
	})
	b.key = sessionKey()
	return b
}

// initialize sends an init request; extra claims go on top of valid ones.
func (b *box) initialize(extra jwt.MapClaims, body string) reply {
	b.t.Helper()
	claims := jwt.MapClaims{"sessionId": "s1", "purpose": "sandbox_init", "session_public_key": rawKey(b.t, &sessionKey().PublicKey)}
	for name, value := range extra {
		claims[name] = value
	}
	token := sign(b.t, jwt.SigningMethodRS256, bootstrapKey(), claims)
	return b.send("POST", "/init", map[string]string{"Authorization": "Bearer " + token}, strings.NewReader(body))
}

func TestInitRefused(t *testing.T) {
	b := bootstrap(t, func(c *Config) { c.SandboxID = "box-1" })
	ok := jwt.MapClaims{"sandboxId": "box-1"}
	with := func(c jwt.MapClaims) jwt.MapClaims {
		for name, value := range ok {
			if _, set := c[name]; !set {
				c[name] = value
			}
		}
		return c
	}
	short, err := os.ReadFile("testdata/rsa1024.pem")
	if err != nil {
		t.Fatal(err)
	}
	key := func(text string) jwt.MapClaims {
		return with(jwt.MapClaims{"session_public_key": base64.RawStdEncoding.EncodeToString([]byte(text))})
	}
	good := &sessionKey().PublicKey
	even := new(big.Int).Add(good.N, big.NewInt(1))
	endless := new(big.Int).Lsh(good.N, 14336)
	endless.SetBit(endless, 0, 1)
	b.send("POST", "/init", nil, nil).expect(t, 401, "Missing Authorization header", "MISSING_TOKEN")
	b.send("POST", "/init", map[string]string{"Authorization": "Bearer"}, nil).expect(t, 401, "Invalid Authorization header format", "MALFORMED_TOKEN")
	b.send("POST", "/init", b.bearer(ok), nil).expect(t, 401, "Invalid token", "INVALID_TOKEN") // signed by the session key
	for _, tt := range []struct {
		name   string
		claims jwt.MapClaims
		body   string
		status int
		text   string
		reason string
	}{
		{"other sandbox", jwt.MapClaims{"sandboxId": "box-2"}, "", 401, "Invalid token", "INVALID_TOKEN"},
		{"any sandbox", nil, "", 401, "Invalid token", "INVALID_TOKEN"},
		{"no exp", with(jwt.MapClaims{"exp": nil}), "", 401, "Invalid token", "INVALID_TOKEN"},
		{"expired", with(jwt.MapClaims{"exp": time.Now().Add(-2 * time.Minute).Unix()}), "", 401, "Invalid token", "INVALID_TOKEN"},
		{"issued in the future", with(jwt.MapClaims{"iat": time.Now().Add(2 * time.Minute).Unix()}), "", 401, "Invalid token", "INVALID_TOKEN"},
		{"no key", with(jwt.MapClaims{"session_public_key": nil}), "", 400, "Missing session_public_key in token", "MISSING_SESSION_KEY"},
		{"empty key", with(jwt.MapClaims{"session_public_key": ""}), "", 400, "Missing session_public_key in token", "MISSING_SESSION_KEY"},
		{"key is a number", with(jwt.MapClaims{"session_public_key": 7}), "", 400, "Missing session_public_key in token", "MISSING_SESSION_KEY"},
		{"padded key", with(jwt.MapClaims{"session_public_key": base64.StdEncoding.EncodeToString([]byte(publicPEM(t, &sessionKey().PublicKey) + "\n"))}), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		{"not PEM", with(jwt.MapClaims{"session_public_key": "aGVsbG8"}), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		{"short key", key(string(short)), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		// What the control plane refuses, the agent does too.
		{"exponent 3", key(publicPEM(t, &rsa.PublicKey{N: good.N, E: 3})), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		{"even modulus", key(publicPEM(t, &rsa.PublicKey{N: even, E: 65537})), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		{"endless key", key(publicPEM(t, &rsa.PublicKey{N: endless, E: 65537})), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		{"two keys", key(publicPEM(t, good) + publicPEM(t, good)), "", 500, "Failed to save public key: ", "BAD_SESSION_KEY"},
		{"other body", with(jwt.MapClaims{"body_sha256": hashOf([]byte("{}"))}), "{ }", 401, "Invalid token", "INVALID_TOKEN"},
		{"signed body is not JSON", with(jwt.MapClaims{"body_sha256": hashOf([]byte("x"))}), "x", 400, "Invalid request body", "INVALID_REQUEST"},
		{"signed body for another session", with(jwt.MapClaims{"body_sha256": hashOf([]byte(`{"sessionId":"s2"}`))}), `{"sessionId":"s2"}`, 400, "Invalid request body", "INVALID_REQUEST"},
		{"bad variable", with(jwt.MapClaims{"body_sha256": hashOf([]byte(`{"env":{"A=B":"c"}}`))}), `{"env":{"A=B":"c"}}`, 400, "Invalid environment variable", "INVALID_ENV"},
		{"unknown mode", with(jwt.MapClaims{"mode": "open"}), "", 401, "Invalid token", "INVALID_TOKEN"},
		{"managed without session", with(jwt.MapClaims{"mode": "managed", "sessionId": nil}), "", 401, "Invalid token", "INVALID_TOKEN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			b.initialize(tt.claims, tt.body).expect(t, tt.status, tt.text, tt.reason)
			b.get("/api/files?path=.").expect(t, 403, "Server not initialized", "NOT_INITIALIZED")
		})
	}
}

func TestInit(t *testing.T) {
	b := bootstrap(t, nil)
	b.send("GET", "/api/files?path=.", nil, nil).expect(t, 403, "Server not initialized", "NOT_INITIALIZED")
	body := `{"sessionId":"s1","metadata":{"a":1},"env":{"GREETING":"hello","FROM_DAEMON":"no"}}`
	got := b.initialize(jwt.MapClaims{"body_sha256": hashOf([]byte(body))}, body)
	if got.StatusCode != 200 || got.json(t)["message"] == "" {
		t.Fatalf("init: %d %s", got.StatusCode, got.body)
	}
	b.initialize(nil, "").expect(t, 403, "Server already initialized", "ALREADY_INITIALIZED")
	b.send("POST", "/init", nil, nil).expect(t, 403, "Server already initialized", "ALREADY_INITIALIZED")
	if got := b.shell("echo $GREETING $FROM_DAEMON").Stdout; got != "hello no\n" {
		t.Errorf("session environment gives %q", got)
	}
	if got := b.execute(map[string]any{"command": []string{"sh", "-c", "echo $GREETING"}, "env": map[string]string{"GREETING": "own"}}).Stdout; got != "own\n" {
		t.Errorf("request environment gives %q", got)
	}
	b.key = bootstrapKey()
	b.get("/api/files?path=.").expect(t, 401, "Invalid token", "INVALID_TOKEN")
	b.key = sessionKey()
	b.send("GET", "/api/files?path=.", b.bearer(jwt.MapClaims{"sid": "s2"}), nil).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	// Two equal requests within a second carry the same token: not a replay, unless
	// it has a name.
	same := b.bearer(jwt.MapClaims{"sid": "s1"})
	for range 2 {
		if got := b.send("GET", "/api/files?path=.", same, nil); got.StatusCode != 200 {
			t.Errorf("refused: %s", got.body)
		}
	}
	once := b.bearer(jwt.MapClaims{"jti": "once"})
	if got := b.send("GET", "/api/files?path=.", once, nil); got.StatusCode != 200 {
		t.Errorf("refused: %s", got.body)
	}
	b.send("GET", "/api/files?path=.", once, nil).expect(t, 401, "Invalid token", "INVALID_TOKEN")
}

// TestInitUnsignedBody: what older control planes send means nothing.
func TestInitUnsignedBody(t *testing.T) {
	b := bootstrap(t, nil)
	if got := b.initialize(nil, `{"sessionId":"s2","env":{"GREETING":"forged"}}`); got.StatusCode != 200 {
		t.Fatalf("init: %s", got.body)
	}
	if got := b.shell("echo .$GREETING").Stdout; got != ".\n" {
		t.Errorf("an unsigned body set the environment: %q", got)
	}
}

// TestInitTooLarge: the answer names the limit that holds for /init, whether the
// length is told ahead or not.
func TestInitTooLarge(t *testing.T) {
	b := bootstrap(t, nil)
	token := sign(t, jwt.SigningMethodRS256, bootstrapKey(), jwt.MapClaims{
		"sessionId": "s1", "purpose": "sandbox_init", "session_public_key": rawKey(t, &sessionKey().PublicKey),
	})
	long := strings.Repeat(" ", maxInitBody+1)
	for name, body := range map[string]io.Reader{"told": strings.NewReader(long), "not told": io.MultiReader(strings.NewReader(long))} {
		got := b.send("POST", "/init", map[string]string{"Authorization": "Bearer " + token}, body)
		got.expect(t, 413, "request body too large", "BODY_TOO_LARGE")
		if detail := got.json(t)["detail"]; detail != "maximum allowed size is 8388608 bytes" {
			t.Errorf("length %s: detail is %q", name, detail)
		}
	}
	if got := b.initialize(nil, long[1:]); got.StatusCode != 200 {
		t.Errorf("a body as long as the limit: %d %s", got.StatusCode, got.body)
	}
}

func TestInitManaged(t *testing.T) {
	b := bootstrap(t, nil)
	if got := b.initialize(jwt.MapClaims{"mode": "managed"}, ""); got.StatusCode != 200 {
		t.Fatalf("init: %s", got.body)
	}
	b.get("/api/files?path=.").expect(t, 401, "Invalid token", "INVALID_TOKEN")
	c := jwt.MapClaims{"session_id": "s1", "jti": "one"}
	if got := b.send("GET", "/api/files?path=.", b.bearer(c), nil); got.StatusCode != 200 {
		t.Errorf("refused: %s", got.body)
	}
	b.send("GET", "/api/files?path=.", b.bearer(c), nil).expect(t, 401, "Invalid token", "INVALID_TOKEN")
}

// TestInitOnce: of many who come at once, one wins.
func TestInitOnce(t *testing.T) {
	b := bootstrap(t, nil)
	var wg sync.WaitGroup
	status := make(chan int, 20)
	for range 20 {
		wg.Go(func() { status <- b.initialize(nil, "").StatusCode })
	}
	wg.Wait()
	close(status)
	count := map[int]int{}
	for s := range status {
		count[s]++
	}
	if count[200] != 1 || count[403] != 19 {
		t.Errorf("answers: %v", count)
	}
}

// TestBothKeys: the router key opens it until somebody initialises.
func TestBothKeys(t *testing.T) {
	b := bootstrap(t, func(c *Config) { c.RouterKey = &routerKey().PublicKey })
	b.key = routerKey()
	if got := b.get("/api/files?path=."); got.StatusCode != 200 {
		t.Errorf("refused: %s", got.body)
	}
	if got := b.initialize(nil, ""); got.StatusCode != 200 {
		t.Fatalf("init: %s", got.body)
	}
	b.get("/api/files?path=.").expect(t, 401, "Invalid token", "INVALID_TOKEN")
	b.key = sessionKey()
	if got := b.get("/api/files?path=."); got.StatusCode != 200 {
		t.Errorf("refused: %s", got.body)
	}
}

func TestInitAbsent(t *testing.T) {
	b := start(t, nil)
	got := b.initialize(nil, "")
	if got.StatusCode != 404 || !bytes.HasPrefix(got.body, []byte("404 page not found")) {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
}

// TestInitSurvives: with a state directory the session outlives the daemon, and
// nothing of it is in the workspace.
func TestInitSurvives(t *testing.T) {
	state := t.TempDir() + "/state"
	b := bootstrap(t, func(c *Config) { c.StateDir = state })
	if got := b.initialize(nil, ""); got.StatusCode != 200 {
		t.Fatalf("init: %s", got.body)
	}
	if got := b.get("/api/files?path=.").body; !bytes.Contains(got, []byte(`"files":[]`)) {
		t.Errorf("the workspace holds %s", got)
	}
	b.close()
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v %v", info, err)
	}
	again := bootstrap(t, func(c *Config) { c.StateDir = state })
	again.initialize(nil, "").expect(t, 403, "Server already initialized", "ALREADY_INITIALIZED")
	if got := again.get("/api/files?path=."); got.StatusCode != http.StatusOK {
		t.Errorf("refused: %s", got.body)
	}
}
