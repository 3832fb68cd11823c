package manager

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// maxTokenBody bounds the body of a request for a token.
const maxTokenBody = 16 << 10

// tokenTable are the routes of a Manager that has tokens to manage.
func (m *Manager) tokenTable() []route {
	if m.cfg.Tokens == nil {
		return nil
	}
	return []route{
		{"POST /v1/tokens", auth.ScopeAdmin, m.createToken},
		{"GET /v1/tokens", auth.ScopeAdmin, m.listTokens},
		{"DELETE /v1/tokens/{name}", auth.ScopeAdmin, m.revokeToken},
	}
}

func (m *Manager) createToken(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	var req api.TokenRequest
	if err := httpserve.ReadJSON(w, r, maxTokenBody, &req); err != nil {
		return err
	}
	token, rec, err := m.cfg.Tokens.Create(r.Context(), who, req)
	switch {
	case errors.Is(err, auth.ErrTokenExists):
		return api.Errorf(http.StatusConflict, api.CodeTokenExists, "there is, or was, a token %s", shorten(req.Name)).
			WithHint("choose another name: what was made with a token stays its name's, also when that is revoked").WithCause(err)
	case errors.Is(err, auth.ErrTooManyTokens):
		return httpserve.Overloaded().WithHint("no more tokens can be made").WithCause(err)
	case err != nil:
		return err
	}
	expires := "never"
	if !rec.ExpiresAt.IsZero() {
		expires = rec.ExpiresAt.Format(time.RFC3339)
	}
	e := audit.Of(r.Context(), record.TokenCreated)
	e.Token, e.Scopes = rec.Name, rec.Scopes.String()
	m.cfg.Audit.Append(e)
	m.log.Info("token created", "token", rec.Name, "scopes", rec.Scopes.String(), "expires", expires, "by", who.Name)
	httpserve.WriteJSON(w, http.StatusOK, api.CreatedToken{Token: token, Info: rec.API()})
	return nil
}

// listTokens answers ?limit=&pageToken=&all=, by name; all shows those too that
// are not valid any more.
func (m *Manager) listTokens(w http.ResponseWriter, r *http.Request, _ auth.Principal) error {
	values := r.URL.Query()
	all, err := boolean(values, "all")
	if err != nil {
		return err
	}
	limit, err := pageLimit(values)
	if err != nil {
		return err
	}
	// One more than the page holds tells whether there is a next one.
	list, err := m.cfg.Tokens.List(r.Context(), all, values.Get("pageToken"), limit+1)
	if err != nil {
		return err
	}
	out := api.TokenList{Tokens: make([]api.Token, 0, len(list))}
	if len(list) > limit {
		list = list[:limit]
		out.NextPageToken = list[limit-1].Name
	}
	for _, rec := range list {
		out.Tokens = append(out.Tokens, rec.API())
	}
	httpserve.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (m *Manager) revokeToken(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	name := r.PathValue("name")
	// What has begun is finished, whether or not the client still listens.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTimeout)
	defer cancel()
	rec, err := m.cfg.Tokens.Revoke(ctx, name)
	if errors.Is(err, auth.ErrNoToken) {
		return api.Errorf(http.StatusNotFound, api.CodeTokenNotFound, "there is no token %s", shorten(name)).WithCause(err)
	}
	if err != nil {
		return err
	}
	m.cfg.TokenRevoked(name)
	e := audit.Of(ctx, record.TokenRevoked)
	e.Token = rec.Name
	m.cfg.Audit.Append(e)
	m.log.Info("token revoked", "token", rec.Name, "by", who.Name)
	httpserve.WriteJSON(w, http.StatusOK, rec.API())
	return nil
}
