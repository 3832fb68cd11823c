package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// TokenOptions say what token to make.
type TokenOptions struct {
	// Scopes of the token; none means api.ScopeCreate and api.ScopeUse. The
	// caller's own token has to have them.
	Scopes []api.Scope
	// TTL is how long it is valid, in whole seconds, by the server's clock;
	// ExpiresAt is until when. At most one of them; neither means for ever.
	TTL       time.Duration
	ExpiresAt time.Time
}

// CreateToken makes a token for somebody else and returns it, which happens once.
// Its name is the owner of what is made with it, 1 to 63 lower-case letters,
// digits, '.', '_' and '-', and is never given again. ErrExists when it is taken,
// by a token that was revoked, too. The caller's token needs the scope admin.
func (c *Client) CreateToken(ctx context.Context, name string, opts TokenOptions) (api.CreatedToken, error) {
	var out api.CreatedToken
	req := api.TokenRequest{Name: name, Scopes: opts.Scopes, ExpiresAt: opts.ExpiresAt}
	if len(req.Scopes) == 0 {
		req.Scopes = []api.Scope{api.ScopeCreate, api.ScopeUse}
	}
	var err error
	if req.TTL, err = wholeSeconds(opts.TTL); err != nil {
		return out, fmt.Errorf("create token %s: %w", name, err)
	}
	raw, err := json.Marshal(req)
	if err != nil {
		return out, fmt.Errorf("encode request: %w", err)
	}
	ctx, cancel := control(ctx)
	defer cancel()
	if err := c.sendJSON(ctx, call{method: http.MethodPost, base: c.manager, path: "/v1/tokens", json: raw}, &out); err != nil {
		return out, fmt.Errorf("create token %s: %w", name, err)
	}
	return out, nil
}

// TokenListOptions select tokens for ListTokens.
type TokenListOptions struct {
	// All lists those too that have expired or were revoked.
	All bool
	// Limit is the page size; 0 means the server's.
	Limit int
	// PageToken is TokenList.NextPageToken of the page before.
	PageToken string
}

// ListTokens returns one page of the tokens that there are beside the local one,
// by name. The caller's token needs the scope admin.
func (c *Client) ListTokens(ctx context.Context, opts TokenListOptions) (api.TokenList, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	query := url.Values{}
	if opts.All {
		query.Set("all", "true")
	}
	if opts.Limit != 0 {
		query.Set("limit", strconv.Itoa(opts.Limit))
	}
	if opts.PageToken != "" {
		query.Set("pageToken", opts.PageToken)
	}
	var out api.TokenList
	if err := c.sendJSON(ctx, call{method: http.MethodGet, base: c.manager, path: "/v1/tokens", query: query}, &out); err != nil {
		return out, fmt.Errorf("list tokens: %w", err)
	}
	return out, nil
}

// RevokeToken makes a token invalid, for ever and at once: requests under way to
// managed sessions break off. What was made with it stays until it ends by itself;
// whoever holds the key of a session can use that meanwhile. Revoking a revoked
// token succeeds. ErrNotFound when there is none of that name. The caller's token
// needs the scope admin.
func (c *Client) RevokeToken(ctx context.Context, name string) (api.Token, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	var out api.Token
	if name == "" || name == "." || name == ".." {
		return out, fmt.Errorf("%q is not the name of a token", name)
	}
	in := call{method: http.MethodDelete, base: c.manager, path: "/v1/tokens/" + url.PathEscape(name)}
	if err := c.sendJSON(ctx, in, &out); err != nil {
		return out, fmt.Errorf("revoke token %s: %w", name, err)
	}
	return out, nil
}
