package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// clock is a machine's clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newTokens() (*auth.Tokens, *authtest.TokenStore, *clock) {
	c, store := &clock{now: noon}, &authtest.TokenStore{}
	return auth.NewTokens(store, c.read), store, c
}

func create(t *testing.T, tokens *auth.Tokens, req api.TokenRequest) (string, auth.TokenRecord) {
	t.Helper()
	if req.Scopes == nil {
		req.Scopes = []api.Scope{api.ScopeUse}
	}
	token, rec, err := tokens.Create(t.Context(), authtest.Admin("local"), req)
	if err != nil {
		t.Fatalf("Create(%s): %v", req.Name, err)
	}
	return token, rec
}

func present(a auth.Authenticator, token string) (auth.Principal, error) {
	return a.Authenticate(&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}})
}

func TestCreateToken(t *testing.T) {
	tokens, store, _ := newTokens()
	token, rec := create(t, tokens, api.TokenRequest{Name: "ci", Scopes: []api.Scope{"use", "create"}, TTL: 3600})
	if !regexp.MustCompile(`^act_[A-Za-z0-9_-]{43}$`).MatchString(token) {
		t.Errorf("token has an unexpected form, %d characters", len(token))
	}
	want := auth.TokenRecord{
		Name: "ci", Hash: rec.Hash, Scopes: auth.ScopeCreate | auth.ScopeUse, CreatedBy: "local", CreatedAt: noon, ExpiresAt: noon.Add(time.Hour),
	}
	if diff := cmp.Diff(want, rec); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if stored, err := store.FindToken(t.Context(), rec.Hash); err != nil || stored != rec || strings.Contains(fmt.Sprintf("%v%s", stored, stored.Hash[:]), token) {
		t.Errorf("stored is %+v, %v", stored, err)
	}
	if p, err := present(tokens, token); err != nil || p != (auth.Principal{Name: "ci", Scopes: auth.ScopeCreate | auth.ScopeUse}) {
		t.Errorf("who shows it is %+v, %v", p, err)
	}
	other, _ := create(t, tokens, api.TokenRequest{Name: "other", ExpiresAt: noon.Add(time.Minute)})
	if other == token {
		t.Error("two tokens are the same")
	}
}

func TestCreateTokenRefused(t *testing.T) {
	const year = 365 * 24 * time.Hour
	use := []api.Scope{"use"}
	tokens, store, _ := newTokens()
	for _, test := range []struct {
		name   string
		by     auth.Scopes
		req    api.TokenRequest
		status int
		text   string
	}{
		{"no name", auth.AllScopes, api.TokenRequest{Scopes: use}, 400, "name must be 1 to 63"},
		{"capital letter", auth.AllScopes, api.TokenRequest{Name: "Local", Scopes: use}, 400, "name must be"},
		{"dot first", auth.AllScopes, api.TokenRequest{Name: ".ci", Scopes: use}, 400, "name must be"},
		{"slash", auth.AllScopes, api.TokenRequest{Name: "a/b", Scopes: use}, 400, "name must be"},
		{"line end", auth.AllScopes, api.TokenRequest{Name: "ci\n", Scopes: use}, 400, "name must be"},
		{"letter of elsewhere", auth.AllScopes, api.TokenRequest{Name: "ci\u0430", Scopes: use}, 400, "name must be"},
		{"too long", auth.AllScopes, api.TokenRequest{Name: strings.Repeat("a", 64), Scopes: use}, 400, "name must be"},
		{"local", auth.AllScopes, api.TokenRequest{Name: "local", Scopes: use}, 400, "reserved"},
		{"system", auth.AllScopes, api.TokenRequest{Name: "system:serviceaccount:a:b", Scopes: use}, 400, "reserved"},
		{"no scopes", auth.AllScopes, api.TokenRequest{Name: "ci"}, 400, "at least one"},
		{"unknown scope", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: []api.Scope{"root"}}, 400, "there is no scope"},
		{"more than its maker", auth.ScopeAdmin, api.TokenRequest{Name: "ci", Scopes: []api.Scope{"use", "create", "admin"}}, 403, "cannot give the scope create and use"},
		{"ttl below 0", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, TTL: -1}, 400, "negative"},
		{"ttl of eleven years", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, TTL: int64(11 * year / time.Second)}, 400, "ten years"},
		{"endless ttl", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, TTL: 1<<63 - 1}, 400, "ten years"},
		{"ends in eleven years", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, ExpiresAt: noon.Add(11 * year)}, 400, "ten years"},
		{"ends in 9999", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, ExpiresAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, 400, "ten years"},
		{"over", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, ExpiresAt: noon}, 400, "it is 2026-03-01T12:00:00Z now"},
		{"both", auth.AllScopes, api.TokenRequest{Name: "ci", Scopes: use, TTL: 1, ExpiresAt: noon.Add(1)}, 400, "exclude each other"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, _, err := tokens.Create(t.Context(), auth.Principal{Name: "ann", Scopes: test.by}, test.req)
			var refused *api.Error
			if !errors.As(err, &refused) || refused.Status != test.status || !strings.Contains(refused.Text, test.text) || token != "" {
				t.Errorf("Create: %v, want %d %q", err, test.status, test.text)
			}
		})
	}
	if n, err := store.CountTokens(t.Context()); err != nil || n != 0 {
		t.Errorf("%d tokens were made, %v", n, err)
	}
}

// TestNamesAreTakenForEver: a name is an owner, and no new holder inherits what
// an old one has left.
func TestNamesAreTakenForEver(t *testing.T) {
	tokens, _, c := newTokens()
	create(t, tokens, api.TokenRequest{Name: "revoked"})
	create(t, tokens, api.TokenRequest{Name: "expired", TTL: 1})
	if _, err := tokens.Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	c.set(noon.AddDate(50, 0, 0))
	for _, name := range []string{"revoked", "expired"} {
		_, _, err := tokens.Create(t.Context(), authtest.Admin("local"), api.TokenRequest{Name: name, Scopes: []api.Scope{"use"}})
		if !errors.Is(err, auth.ErrTokenExists) {
			t.Errorf("Create(%s): %v, want ErrTokenExists", name, err)
		}
	}
}

// TestInvalidTokensAreAlike: nobody learns whether a token was good once.
func TestInvalidTokensAreAlike(t *testing.T) {
	tokens, _, c := newTokens()
	revoked, _ := create(t, tokens, api.TokenRequest{Name: "revoked"})
	expired, _ := create(t, tokens, api.TokenRequest{Name: "expired", TTL: 60})
	both, _ := create(t, tokens, api.TokenRequest{Name: "both", TTL: 60})
	good, _ := create(t, tokens, api.TokenRequest{Name: "good"})
	for _, name := range []string{"revoked", "both"} {
		if _, err := tokens.Revoke(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false} {
		c.set(noon.Add(at))
		if _, err := present(tokens, expired); (err == nil) != want {
			t.Errorf("after %v of a minute: %v", at, err)
		}
	}
	c.set(noon.Add(time.Minute))
	local := auth.NewLocal("ac_" + strings.Repeat("x", 43))
	for _, a := range []auth.Authenticator{tokens, auth.Chain{local, tokens}, auth.Chain{tokens, local}} {
		_, want := present(a, "act_"+strings.Repeat("x", 43)) // never was one
		for what, token := range map[string]string{
			"revoked": revoked, "expired": expired, "both": both, "empty": "", "cut": good[:len(good)-1], "longer": good + "x",
			"of another case": "ACT_" + good[4:], "without prefix": good[4:], "another secret": good[:len(good)-2] + "..",
			"like the local one": "ac_" + good[4:],
		} {
			p, err := present(a, token)
			if diff := cmp.Diff(httpserve.AsError(want), httpserve.AsError(err)); diff != "" || p != (auth.Principal{}) {
				t.Errorf("%T, %s token: %+v (-want +got):\n%s", a, what, p, diff)
			}
		}
		if e := httpserve.AsError(want); e.Status != 401 || e.Text != "Invalid or expired token" || e.Hint == "" || e.Cause != nil {
			t.Errorf("%T: %+v", a, e)
		}
		if p, err := present(a, good); err != nil || p.Name != "good" {
			t.Errorf("%T, good token: %+v, %v", a, p, err)
		}
	}
}

// TestRevokedAtOnce: the request after the revocation is refused.
func TestRevokedAtOnce(t *testing.T) {
	tokens, _, _ := newTokens()
	for n := range 100 {
		name := fmt.Sprint("t", n)
		token, _ := create(t, tokens, api.TokenRequest{Name: name})
		if _, err := present(tokens, token); err != nil {
			t.Fatal(err)
		}
		rec, err := tokens.Revoke(t.Context(), name)
		if err != nil || !rec.RevokedAt.Equal(noon) {
			t.Fatalf("Revoke: %+v, %v", rec, err)
		}
		if p, err := present(tokens, token); err == nil {
			t.Fatalf("who shows the revoked token is %+v", p)
		}
	}
	if _, err := tokens.Revoke(t.Context(), "nobody"); !errors.Is(err, auth.ErrNoToken) {
		t.Errorf("Revoke: %v, want ErrNoToken", err)
	}
}

// TestLastUsedIsCoarse: not every request writes.
func TestLastUsedIsCoarse(t *testing.T) {
	tokens, store, c := newTokens()
	token, rec := create(t, tokens, api.TokenRequest{Name: "ci"})
	for _, step := range []struct{ at, want time.Duration }{
		{time.Second, time.Second}, {30 * time.Second, time.Second}, {61 * time.Second, 61 * time.Second},
		{-time.Hour, 61 * time.Second}, {time.Hour, time.Hour},
	} {
		c.set(noon.Add(step.at))
		if _, err := present(tokens, token); err != nil {
			t.Fatal(err)
		}
		if got, err := store.FindToken(t.Context(), rec.Hash); err != nil || !got.LastUsedAt.Equal(noon.Add(step.want)) {
			t.Errorf("at %v: last used %v, %v, want %v", step.at, got.LastUsedAt.Sub(noon), err, step.want)
		}
	}
}

// TestUncheckedToken: where the store is away nobody is let in, and nobody is told
// that their token is wrong.
func TestUncheckedToken(t *testing.T) {
	tokens := auth.NewTokens(&authtest.TokenStore{Fail: errors.New("disk on fire")}, nil)
	local := "ac_" + strings.Repeat("x", 43)
	chain := auth.Chain{auth.NewLocal(local), tokens, auth.NewLocal("another")}
	token := "act_" + strings.Repeat("y", 43)
	for _, a := range []auth.Authenticator{tokens, chain} {
		p, err := present(a, token)
		e := httpserve.AsError(err)
		if e.Status != 503 || e.Code != api.CodeUnavailable || e.RetryAfter != 1 || p != (auth.Principal{}) || strings.Contains(e.Text, "fire") {
			t.Errorf("%T: %+v, %v", a, p, err)
		}
	}
	if _, err := present(chain, local); err != nil {
		t.Errorf("the local token needs no store: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	r := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(gone)
	if _, err := tokens.Authenticate(r); !errors.Is(err, context.Canceled) {
		t.Errorf("of a client that has gone: %v, want context.Canceled", err)
	}
}

// full is a store in which there is no room.
type full struct{ authtest.TokenStore }

func (*full) CountTokens(context.Context) (int, error) { return 100_000, nil }

func TestTooManyTokens(t *testing.T) {
	_, _, err := auth.NewTokens(&full{}, nil).Create(t.Context(), authtest.Admin("local"), api.TokenRequest{Name: "ci", Scopes: []api.Scope{"use"}})
	if !errors.Is(err, auth.ErrTooManyTokens) {
		t.Errorf("Create: %v, want ErrTooManyTokens", err)
	}
}

func TestChainOfNone(t *testing.T) {
	if p, err := present(auth.Chain{}, "x"); httpserve.AsError(err).Status != 401 || p != (auth.Principal{}) {
		t.Errorf("%+v, %v, want a 401", p, err)
	}
	tokens, _, _ := newTokens()
	if _, err := (auth.Chain{auth.NewLocal("x"), tokens}).Authenticate(&http.Request{}); httpserve.AsError(err).Text != "Missing authorization header" {
		t.Errorf("without credentials: %v", err)
	}
}
