package manager_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/logtest"
	"github.com/volcano-sh/agentcube/internal/manager"
)

// token makes a token as the administrator.
func (n *node) token(name string, ttl int64, scopes ...api.Scope) string {
	n.t.Helper()
	body, err := json.Marshal(api.TokenRequest{Name: name, Scopes: scopes, TTL: ttl})
	if err != nil {
		n.t.Fatal(err)
	}
	got := n.do(n.t.Context(), "root", "POST", "/v1/tokens", string(body))
	var out api.CreatedToken
	got.decode(n.t, &out)
	if got.status != http.StatusOK || out.Info.Name != name || out.Info.CreatedBy != "root" || !slices.Equal(out.Info.Scopes, scopes) {
		n.t.Fatalf("create token = %d %+v", got.status, out.Info)
	}
	return out.Token
}

// TestTokens: from its creation to its revocation, and through a restart.
func TestTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var revoked []string
	w.config = func(c *manager.Config) { c.TokenRevoked = func(name string) { revoked = append(revoked, name) } }
	n := w.start()
	ci := n.token("ci", 0, "create", "use")
	var made api.CreateResponse
	n.do(t.Context(), ci, "POST", createPath, createBody).decode(t, &made)
	path := "/v1/sessions/" + made.SessionID
	if made.OwnerID != "ci" {
		t.Errorf("the session is owned by %q", made.OwnerID)
	}
	wantCode(t, n.do(t.Context(), "alice", "GET", path, ""), 404, api.CodeSessionNotFound)

	n.stop()
	n = w.start() // another process
	if got := n.do(t.Context(), ci, "GET", path, ""); got.status != 200 {
		t.Errorf("get after a restart = %d %s", got.status, got.body)
	}
	got := n.do(t.Context(), "root", "DELETE", "/v1/tokens/ci", "")
	var info api.Token
	got.decode(t, &info)
	if got.status != 200 || info.RevokedAt.IsZero() || info.LastUsedAt.IsZero() || strings.Join(revoked, " ") != "ci" {
		t.Errorf("revoke = %d %s, told of %q", got.status, got.body, revoked)
	}
	if again := n.do(t.Context(), "root", "DELETE", "/v1/tokens/ci", ""); again.status != 200 || again.body != got.body {
		t.Errorf("second revoke = %d %s", again.status, again.body)
	}
	for range 2 {
		wantCode(t, n.do(t.Context(), ci, "GET", path, ""), 401, api.CodeUnauthorized)
		n.stop()
		n = w.start()
	}
	// What it has made is nobody's to use, and an administrator's to end.
	wantCode(t, n.do(t.Context(), "root", "POST", "/v1/tokens", `{"name":"ci","scopes":["use"]}`), 409, api.CodeTokenExists)
	if got := n.do(t.Context(), "root", "DELETE", path, ""); got.status != 200 {
		t.Errorf("delete by an administrator = %d %s", got.status, got.body)
	}
}

func TestTokensRefused(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start()
	ops := n.token("ops", 0, "admin")
	for _, test := range []struct {
		who, method, path, body string
		status                  int
		code                    api.Code
	}{
		{"root", "POST", "/v1/tokens", "", 400, api.CodeInvalidRequest},
		{"root", "POST", "/v1/tokens", "{}", 400, api.CodeInvalidRequest},
		{"root", "POST", "/v1/tokens", `{"name":"local","scopes":["use"]}`, 400, api.CodeInvalidRequest},
		{"root", "POST", "/v1/tokens", `{"name":"a","scopes":["use"],"expiresAt":"tomorrow"}`, 400, api.CodeInvalidRequest},
		{"root", "POST", "/v1/tokens", `{"name":"a","scopes":["use"],"expiresAt":"2020-01-01T00:00:00Z"}`, 400, api.CodeInvalidRequest},
		{"root", "POST", "/v1/tokens", `{"name":"a","scopes":"use"}`, 400, api.CodeInvalidRequest},
		{"root", "POST", "/v1/tokens", `{"name":"` + strings.Repeat("a", 20<<10) + `"}`, 413, api.CodeBodyTooLarge},
		{"root", "POST", "/v1/tokens", `{"name":"ops","scopes":["use"]}`, 409, api.CodeTokenExists},
		{ops, "POST", "/v1/tokens", `{"name":"a","scopes":["admin","use"]}`, 403, api.CodeForbidden},
		{"alice", "POST", "/v1/tokens", `{"name":"a","scopes":["use"]}`, 403, api.CodeForbidden},
		{"alice", "GET", "/v1/tokens", "", 403, api.CodeForbidden},
		{"alice", "DELETE", "/v1/tokens/ops", "", 403, api.CodeForbidden},
		{"alice", "DELETE", "/v1/tokens/nobody", "", 403, api.CodeForbidden},
		{"", "GET", "/v1/tokens", "", 401, api.CodeUnauthorized},
		{"root", "GET", "/v1/tokens?all=1", "", 400, api.CodeInvalidRequest},
		{"root", "GET", "/v1/tokens?limit=0", "", 400, api.CodeInvalidRequest},
		{"root", "DELETE", "/v1/tokens/nobody", "", 404, api.CodeTokenNotFound},
		{"root", "DELETE", "/v1/tokens/local", "", 404, api.CodeTokenNotFound},
		{"root", "DELETE", "/v1/tokens/OPS", "", 404, api.CodeTokenNotFound},
	} {
		got := n.do(t.Context(), test.who, test.method, test.path, test.body)
		var e api.Error
		got.decode(t, &e)
		if got.status != test.status || e.Code != test.code {
			t.Errorf("%s %s %.60s = %d %s, want %d %s", test.method, test.path, test.body, got.status, got.body, test.status, test.code)
		}
	}
	if got := n.tokenNames("?all=true"); got != "ops" {
		t.Errorf("tokens: %s", got)
	}
	if got := n.do(t.Context(), ops, "POST", "/v1/tokens", `{"name":"ops2","scopes":["admin"]}`); got.status != 200 {
		t.Errorf("a token of the same scopes = %d %s", got.status, got.body)
	}
}

// tokenNames are the names in all pages.
func (n *node) tokenNames(query string) string {
	n.t.Helper()
	var names []string
	for page := ""; ; {
		var out api.TokenList
		n.do(n.t.Context(), "root", "GET", "/v1/tokens"+query+"&pageToken="+page, "").decode(n.t, &out)
		for _, token := range out.Tokens {
			names = append(names, token.Name)
		}
		if page = out.NextPageToken; page == "" {
			return strings.Join(names, " ")
		}
	}
}

func TestListTokens(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start()
	if got := n.do(t.Context(), "root", "GET", "/v1/tokens", ""); got.body != `{"tokens":[]}` {
		t.Errorf("empty list = %s", got.body)
	}
	for _, name := range []string{"e", "b", "d", "a", "c"} {
		n.token(name, 3600, "use")
	}
	n.do(t.Context(), "root", "DELETE", "/v1/tokens/b", "")
	for query, want := range map[string]string{
		"?": "a c d e", "?all=false": "a c d e", "?all=true": "a b c d e", "?limit=2": "a c d e", "?limit=1&all=true": "a b c d e", "?limit=5&all=true": "a b c d e",
	} {
		if got := n.tokenNames(query); got != want {
			t.Errorf("list %s = %q, want %q", query, got, want)
		}
	}
}

// TestExpiredTokenEnds: nothing has to happen for a token to end.
func TestExpiredTokenEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	short := n.token("short", 1, "use")
	w.eventually("the token is not valid any more", func() bool {
		return n.do(t.Context(), short, "GET", "/v1/sessions", "").status == http.StatusUnauthorized
	})
	if got := n.tokenNames("?"); got != "" {
		t.Errorf("valid are %q", got)
	}
	if got := n.tokenNames("?all=true"); got != "short" {
		t.Errorf("all are %q", got)
	}
}

// TestTokensAreNowhere: neither in the log, however much it says, nor on disk.
func TestTokensAreNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log logtest.Buffer
	w.config = func(c *manager.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n := w.start()
	good := n.token("good", 0, "create", "use")
	gone := n.token("gone", 0, "use")
	n.do(t.Context(), good, "POST", createPath, createBody)
	n.do(t.Context(), good, "GET", "/v1/tokens", "") // 403
	n.do(t.Context(), good, "DELETE", "/v1/sessions/nothing", "")
	n.do(t.Context(), "root", "DELETE", "/v1/tokens/gone", "")
	n.do(t.Context(), gone, "GET", "/v1/sessions", "") // 401
	n.do(t.Context(), "root", "POST", "/v1/tokens", `{"name":"good","scopes":["use"]}`)
	files, err := filepath.Glob(filepath.Join(filepath.Dir(w.path), "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files of the store: %q, %v", files, err)
	}
	places := map[string]string{"the log": log.String()}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		places[filepath.Base(file)] = string(content)
	}
	for _, said := range []string{"token created", "token revoked", "good", "request failed", "Invalid or expired token"} {
		if !strings.Contains(places["the log"], said) {
			t.Errorf("the log does not say %q: is it the right one?", said)
		}
	}
	for _, token := range []string{good, gone} {
		sum := sha256.Sum256([]byte(token))
		for where, content := range places {
			// Half of it is too much, and so is the hash where people look.
			for _, secret := range []string{token, token[4:26], token[26:]} {
				if strings.Contains(content, secret) {
					t.Errorf("a token is in %s", where)
				}
			}
			if where == "the log" && (strings.Contains(content, hex.EncodeToString(sum[:])) || strings.Contains(content, base64.StdEncoding.EncodeToString(sum[:]))) {
				t.Error("the hash of a token is in the log")
			}
		}
	}
}

// TestTokensAtOnce: while tokens come and go, each is good from the answer that
// shows it to the answer that revokes it.
func TestTokensAtOnce(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("t%d-%d", i, j)
				token := n.token(name, 60, "use")
				for range 3 {
					if got := n.do(t.Context(), token, "GET", "/v1/sessions", ""); got.status != 200 {
						t.Errorf("list with a good token = %d %s", got.status, got.body)
					}
				}
				if got := n.do(t.Context(), "root", "DELETE", "/v1/tokens/"+name, ""); got.status != 200 {
					t.Errorf("revoke = %d %s", got.status, got.body)
				}
				if got := n.do(t.Context(), token, "GET", "/v1/sessions", ""); got.status != 401 {
					t.Errorf("list with a revoked token = %d %s", got.status, got.body)
				}
			}
		})
	}
	wg.Wait()
}

// TestOthersCheckpoints: an administrator removes what belongs to others, and
// nobody else does; nobody else's can be used.
func TestOthersCheckpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	id := n.create().SessionID
	for _, name := range []string{"a", "b"} {
		if got := n.checkpoint(id, name); got.status != 200 {
			t.Fatalf("checkpoint = %d %s", got.status, got.body)
		}
	}
	remove := func(who, query string) answer {
		return n.do(t.Context(), who, "DELETE", "/v1/checkpoints/a"+query, "")
	}
	for _, query := range []string{"", "?owner=alice", "?owner=nobody", "?owner="} {
		wantCode(t, remove("bob", query), 404, api.CodeCheckpointNotFound)
	}
	wantCode(t, remove("root", ""), 404, api.CodeCheckpointNotFound) // it has none of that name
	wantCode(t, n.do(t.Context(), "root", "POST", createPath, `{"checkpoint":"a"}`), 404, api.CodeCheckpointNotFound)
	if got := remove("root", "?owner=alice"); got.status != 200 || !strings.Contains(got.body, `"owner":"alice"`) {
		t.Errorf("removed by an administrator = %d %s", got.status, got.body)
	}
	wantCode(t, remove("alice", "?owner=alice"), 404, api.CodeCheckpointNotFound)
	if got := n.do(t.Context(), "alice", "DELETE", "/v1/checkpoints/b?owner=alice", ""); got.status != 200 {
		t.Errorf("removed by its owner = %d %s", got.status, got.body)
	}
}
