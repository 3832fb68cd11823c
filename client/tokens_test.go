package client

import (
	"errors"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

func TestTokens(t *testing.T) {
	const info = `{"name":"ci","scopes":["create","use"],"createdBy":"local","createdAt":"2026-01-02T03:04:05Z"}`
	ends := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	srv := serve(t, reply(200, `{"token":"act_x","info":`+info+`}`), reply(200, `{"token":"act_y","info":`+info+`}`),
		reply(200, `{"tokens":[`+info+`],"nextPageToken":"ci"}`), reply(200, `{"tokens":[]}`), reply(200, info), reply(404, `{"code":"TOKEN_NOT_FOUND"}`))
	c := connect(t, Config{BaseURL: srv.URL + "/prefix", Token: "tok"})
	ctx := t.Context()
	made, err := c.CreateToken(ctx, "ci", TokenOptions{TTL: time.Hour})
	if err != nil || made.Token != "act_x" || made.Info.Name != "ci" || len(made.Info.Scopes) != 2 || !made.Info.ExpiresAt.IsZero() {
		t.Errorf("CreateToken = %+v, %v", made.Info, err)
	}
	if _, err := c.CreateToken(ctx, "ops", TokenOptions{Scopes: []api.Scope{api.ScopeAdmin}, ExpiresAt: ends}); err != nil {
		t.Error(err)
	}
	page, err := c.ListTokens(ctx, TokenListOptions{All: true, Limit: 1, PageToken: "a b"})
	if err != nil || len(page.Tokens) != 1 || page.NextPageToken != "ci" {
		t.Errorf("ListTokens = %+v, %v", page, err)
	}
	if _, err := c.ListTokens(ctx, TokenListOptions{}); err != nil {
		t.Error(err)
	}
	if got, err := c.RevokeToken(ctx, "c/i"); err != nil || got.Name != "ci" {
		t.Errorf("RevokeToken = %+v, %v", got, err)
	}
	if _, err := c.RevokeToken(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("RevokeToken: %v, want ErrNotFound", err)
	}
	for i, want := range []struct{ method, uri, body string }{
		{"POST", "/prefix/v1/tokens", `{"name":"ci","scopes":["create","use"],"ttl":3600}`},
		{"POST", "/prefix/v1/tokens", `{"name":"ops","scopes":["admin"],"expiresAt":"2030-01-02T03:04:05Z"}`},
		{"GET", "/prefix/v1/tokens?all=true&limit=1&pageToken=a+b", ""},
		{"GET", "/prefix/v1/tokens", ""},
		{"DELETE", "/prefix/v1/tokens/c%2Fi", ""},
		{"DELETE", "/prefix/v1/tokens/nobody", ""},
	} {
		r := srv.request(i)
		if r.method != want.method || r.uri != want.uri || string(r.body) != want.body || r.header.Get("Authorization") != "Bearer tok" {
			t.Errorf("request %d: %s %s %s", i, r.method, r.uri, r.body)
		}
	}
	for _, name := range []string{"", ".", ".."} {
		if _, err := c.RevokeToken(ctx, name); err == nil {
			t.Errorf("a token %q was revoked", name)
		}
	}
	for _, ttl := range []time.Duration{-time.Second, time.Millisecond} {
		if _, err := c.CreateToken(ctx, "x", TokenOptions{TTL: ttl}); err == nil {
			t.Errorf("a token was made for %v", ttl)
		}
	}
}

// TestOfAllOwners: what an administrator asks for.
func TestOfAllOwners(t *testing.T) {
	srv := serve(t, reply(200, `{"sessions":[]}`), reply(200, `{"checkpoints":[]}`), reply(200, keptState), reply(200, `{"checkpoints":[]}`))
	c := connect(t, Config{BaseURL: srv.URL, Token: "tok"})
	ctx := t.Context()
	_, listErr := c.ListSessions(ctx, ListOptions{AllOwners: true})
	_, allErr := c.AllCheckpoints(ctx)
	_, deleteErr := c.DeleteCheckpointOf(ctx, "a&b", "c.1")
	_, ownErr := c.Checkpoints(ctx)
	if err := errors.Join(listErr, allErr, deleteErr, ownErr); err != nil {
		t.Error(err)
	}
	for i, want := range []string{
		"GET /v1/sessions?all=true", "GET /v1/checkpoints?all=true", "DELETE /v1/checkpoints/c.1?owner=a%26b", "GET /v1/checkpoints",
	} {
		if r := srv.request(i); r.method+" "+r.uri != want {
			t.Errorf("request %d: %s %s, want %s", i, r.method, r.uri, want)
		}
	}
	if _, err := c.DeleteCheckpointOf(ctx, "", "c"); err == nil {
		t.Error("a checkpoint of nobody was deleted")
	}
}
