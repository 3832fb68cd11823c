package picod

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// locked is a server that is locked to a session key, strictly or not.
func locked(t *testing.T, strict string) *box {
	t.Helper()
	b := bootstrap(t, nil)
	body := `{"sessionId":"s1","strict":` + strict + `}`
	if got := b.initialize(jwt.MapClaims{"body_sha256": hashOf([]byte(body))}, body); got.StatusCode != 200 {
		t.Fatalf("init: %d %s", got.StatusCode, got.body)
	}
	return b
}

// bound are the claims of a token that is for one request of s1; nil leaves one out.
func bound(method, target string, change jwt.MapClaims) jwt.MapClaims {
	now := time.Now()
	claims := jwt.MapClaims{
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": now.String(),
		"sid": "s1", "htm": method, "htu": target,
	}
	maps.Copy(claims, change)
	return claims
}

// TestBoundTokens: a token that names its request is good for nothing else.
func TestBoundTokens(t *testing.T) {
	b := locked(t, "false")
	const command = `{"command":["true"]}`
	sum := hashOf([]byte(command))
	for name, tt := range map[string]struct {
		change jwt.MapClaims
		body   string
		status int
	}{
		"complete":           {nil, command, 200},
		"another method":     {jwt.MapClaims{"htm": "GET"}, command, 401},
		"no method":          {jwt.MapClaims{"htm": nil}, command, 401},
		"another path":       {jwt.MapClaims{"htu": "/api/files"}, command, 401},
		"no path":            {jwt.MapClaims{"htu": nil}, command, 401},
		"a query":            {jwt.MapClaims{"htu": "/api/execute?a"}, command, 401},
		"another session":    {jwt.MapClaims{"sid": "s2"}, command, 401},
		"no session":         {jwt.MapClaims{"sid": nil}, command, 401},
		"no jti":             {jwt.MapClaims{"jti": nil}, command, 401},
		"jti is a number":    {jwt.MapClaims{"jti": 1}, command, 401},
		"jti is too long":    {jwt.MapClaims{"jti": strings.Repeat("x", 300)}, command, 401},
		"no iat":             {jwt.MapClaims{"iat": nil}, command, 401},
		"valid for too long": {jwt.MapClaims{"exp": time.Now().Add(6 * time.Minute).Unix()}, command, 401},
		"another body":       {nil, `{"command":["id"]}`, 401},
		"no body hash":       {jwt.MapClaims{"body_sha256": nil}, command, 401},
	} {
		t.Run(name, func(t *testing.T) {
			change := jwt.MapClaims{"body_sha256": sum}
			maps.Copy(change, tt.change)
			claims := bound("POST", "/api/execute", change)
			got := b.send("POST", "/api/execute", b.bearer(claims), strings.NewReader(tt.body))
			if got.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %s", got.StatusCode, tt.status, got.body)
			}
		})
	}
}

// TestBoundTokenOnce: also when it comes many times at once.
func TestBoundTokenOnce(t *testing.T) {
	b := locked(t, "true")
	headers := b.bearer(bound("GET", "/api/files?path=.", nil))
	const times = 20
	answers := make(chan int, times)
	for range times {
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/api/files?path=.", nil)
			if err != nil {
				answers <- 0
				return
			}
			req.Header.Set("Authorization", headers["Authorization"])
			resp, err := b.http.Do(req)
			if err != nil {
				answers <- 0
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	count := map[int]int{}
	for range times {
		count[<-answers]++
	}
	if count[200] != 1 || count[401] != times-1 {
		t.Errorf("answers %v, want one 200 and the rest 401", count)
	}
}

// TestBoundPaths: the path that is signed is the one that is served.
func TestBoundPaths(t *testing.T) {
	b := locked(t, "true")
	for name, content := range map[string]string{"a": "one", "a?b": "two", "a b/ü#%.txt": "three"} {
		file := filepath.Join(b.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		target, sent, want string
		status             int
	}{
		{"/api/files/a", "/api/files/a", "one", 200},
		{"/api/files/a%3Fb", "/api/files/a%3Fb", "two", 200},
		{"/api/files/a%20b/%C3%BC%23%25.txt", "/api/files/a%20b/%C3%BC%23%25.txt", "three", 200},
		{"/api/files/a", "/api/files/%61", "one", 200}, // another spelling of the same path
		{"/api/files/a%3Fb", "/api/files/a?b", "", 401},
		{"/api/files/a", "/api/files/a?b", "", 401},
		{"/api/files/a", "/api/files/a%3Fb", "", 401},
		{"/api/files/a", "/api/files/./a", "", 401},
		{"/api/files/a", "/api/files//a", "", 401},
	} {
		got := b.send("GET", tt.sent, b.bearer(bound("GET", tt.target, nil)), nil)
		if got.StatusCode != tt.status || tt.status == 200 && string(got.body) != tt.want {
			t.Errorf("signed %s, sent %s: %d %q", tt.target, tt.sent, got.StatusCode, got.body)
		}
	}
}

// TestStrict: a strict session takes nothing but bound tokens.
func TestStrict(t *testing.T) {
	strict, lax := locked(t, "true"), locked(t, "false")
	if got := lax.get("/api/files?path=."); got.StatusCode != 200 {
		t.Errorf("an unbound token: %d %s", got.StatusCode, got.body)
	}
	strict.get("/api/files?path=.").expect(t, 401, "Invalid token", "INVALID_TOKEN")
	strict.post("/api/execute", map[string]any{"command": []string{"true"}}).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	strict.postForm(jwt.MapClaims{"jti": "x", "sid": "s1"}, field{name: "path", value: "f"}, field{name: "file", filename: "f"}).
		expect(t, 401, "Invalid token", "INVALID_TOKEN")
	if got := strict.tree(); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
}

// TestSignedForm: what is in a form is what was signed, and nothing is written
// before that is known.
func TestSignedForm(t *testing.T) {
	const content = "a,b\n1,2\n"
	b := locked(t, "true")
	for name, tt := range map[string]struct {
		signed jwt.MapClaims
		path   string
		body   string
		status int
	}{
		"as signed":         {nil, "data.csv", content, 200},
		"another content":   {nil, "data.csv", "a,b\n1,3\n", 401},
		"cut off":           {nil, "data.csv", content[:4], 401},
		"another path":      {nil, "other.csv", content, 401},
		"no path signed":    {jwt.MapClaims{"path": nil}, "data.csv", content, 401},
		"another mode":      {jwt.MapClaims{"mode": "0755"}, "data.csv", content, 401},
		"another request":   {jwt.MapClaims{"jti": "other"}, "data.csv", content, 401},
		"no content signed": {jwt.MapClaims{"content_sha256": nil}, "data.csv", content, 401},
		"expired":           {jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}, "data.csv", content, 401},
	} {
		t.Run(name, func(t *testing.T) {
			claims := bound("POST", "/api/files", nil)
			form := jwt.MapClaims{
				"exp": claims["exp"], "iat": claims["iat"], "jti": claims["jti"],
				"path": "data.csv", "mode": "0644", "content_sha256": hashOf([]byte(content)),
			}
			maps.Copy(form, tt.signed)
			got := b.postForm(claims, field{name: "path", value: tt.path}, field{name: "mode", value: "0644"},
				field{name: "file", filename: "f", value: tt.body},
				field{name: "signature", value: sign(t, jwt.SigningMethodRS256, b.key, form)})
			if got.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %s", got.StatusCode, tt.status, got.body)
			}
			if left := b.tree(); (len(left) == 1) != (tt.status == 200) {
				t.Errorf("files %q", left)
			}
			_ = os.Remove(filepath.Join(b.dir, "data.csv"))
		})
	}
	t.Run("no signature", func(t *testing.T) {
		b.postForm(bound("POST", "/api/files", nil), field{name: "path", value: "f"}, field{name: "file", filename: "f", value: content}).
			expect(t, 401, "Invalid token", "INVALID_TOKEN")
	})
	t.Run("signed by another", func(t *testing.T) {
		claims := bound("POST", "/api/files", nil)
		b.postForm(claims, field{name: "path", value: "f"}, field{name: "file", filename: "f", value: content},
			field{name: "signature", value: sign(t, jwt.SigningMethodRS256, bootstrapKey(), jwt.MapClaims{
				"exp": claims["exp"], "jti": claims["jti"], "path": "f", "mode": "", "content_sha256": hashOf([]byte(content)),
			})}).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	})
	t.Run("a signature is no token", func(t *testing.T) {
		lax := locked(t, "false")
		claims := jwt.MapClaims{"jti": "x", "path": "f", "mode": "", "content_sha256": hashOf([]byte(content))}
		lax.send("GET", "/api/files?path=.", lax.bearer(claims), nil).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	})
	t.Run("a long path", func(t *testing.T) {
		path := strings.Repeat(strings.Repeat("ä", 100)+"/", 15) + "f"
		claims := bound("POST", "/api/files", nil)
		form := jwt.MapClaims{"jti": claims["jti"], "path": path, "mode": "", "content_sha256": hashOf([]byte(content))}
		got := b.postForm(claims, field{name: "path", value: path}, field{name: "file", filename: "f", value: content},
			field{name: "signature", value: sign(t, jwt.SigningMethodRS256, b.key, form)})
		if got.StatusCode != 200 {
			t.Errorf("refused: %.300s", got.body)
		}
	})
	t.Run("hash of the whole body", func(t *testing.T) {
		contentType, body := buildForm(t, field{name: "path", value: "f"}, field{name: "file", filename: "f", value: content})
		headers := b.bearer(bound("POST", "/api/files", jwt.MapClaims{"body_sha256": hashOf(body)}))
		headers["Content-Type"] = contentType
		if got := b.send("POST", "/api/files", headers, bytes.NewReader(body)); got.StatusCode != 200 {
			t.Errorf("refused: %s", got.body)
		}
	})
}

// TestBoundAfterRestart: what an earlier run has seen of tokens is not known any
// more, so that a token from that time is refused.
func TestBoundAfterRestart(t *testing.T) {
	state := t.TempDir()
	keep := func(c *Config) { c.StateDir = state }
	b := bootstrap(t, keep)
	if got := b.initialize(nil, ""); got.StatusCode != 200 {
		t.Fatalf("init: %s", got.body)
	}
	headers := b.bearer(bound("GET", "/api/files?path=.", nil))
	if got := b.send("GET", "/api/files?path=.", headers, nil); got.StatusCode != 200 {
		t.Fatalf("refused: %s", got.body)
	}
	b.close()
	again := bootstrap(t, keep)
	again.send("GET", "/api/files?path=.", headers, nil).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	later := bound("GET", "/api/files?path=.", jwt.MapClaims{"iat": time.Now().Add(2 * time.Second).Unix()})
	if got := again.send("GET", "/api/files?path=.", again.bearer(later), nil); got.StatusCode != 200 {
		t.Errorf("a token made after the restart: %s", got.body)
	}
}
