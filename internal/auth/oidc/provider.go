package oidc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/oidc/issuer"
)

const (
	// maxToken bounds the tokens that are looked at.
	maxToken = 16 << 10
	// leeway is how far the provider's clock and ours may be apart.
	leeway = 30 * time.Second
	// maxSubject is the longest subject that there may be, by OpenID Connect Core.
	maxSubject = 255
)

// Config of a Provider.
type Config struct {
	// Issuer is the provider's URL, to the letter as its tokens have it.
	Issuer string
	// Audience is what tokens have to be for; "" means that they may be for anything,
	// and so for any other service of the provider's too.
	Audience string
	// RoleClaim is where a token lists the roles of its holder: the name of a claim, or a
	// path with dots into one, such as realm_access.roles.
	RoleClaim string
	// RequiredRole is a role without which nobody is let in, AdminRole one that makes its
	// holder an administrator; "" is none. They need RoleClaim.
	RequiredRole, AdminRole string
	// TLS is how the provider is connected to; nil means by the machine's authorities.
	TLS *tls.Config
}

// Provider is an auth.Authenticator for the tokens of one OpenID provider.
type Provider struct {
	cfg  Config
	keys *keys
}

var _ auth.Authenticator = (*Provider)(nil)

// New makes a Provider. It does no I/O. The error says that the Config makes no sense.
func New(cfg Config) (*Provider, error) {
	if err := issuer.Check(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("make OpenID provider: %w", err)
	}
	if cfg.RoleClaim == "" && (cfg.RequiredRole != "" || cfg.AdminRole != "") {
		return nil, errors.New("make OpenID provider: roles are wanted, but not the claim that lists them")
	}
	return &Provider{cfg: cfg, keys: newKeys(cfg.Issuer, cfg.TLS)}, nil
}

// Reach asks the provider for its keys, unless they are known. The error says why they
// are not, or is that of ctx. It is for a start that wants to say so: tokens have it
// asked in any case.
func (p *Provider) Reach(ctx context.Context) error {
	if set, _ := p.keys.known(); set != nil {
		return nil
	}
	return p.keys.renew(ctx)
}

// algorithms are those that a token may be signed with: all that need a private key.
func algorithms() []string {
	return []string{
		gooidc.RS256, gooidc.RS384, gooidc.RS512, gooidc.ES256, gooidc.ES384, gooidc.ES512,
		gooidc.PS256, gooidc.PS384, gooidc.PS512, gooidc.EdDSA,
	}
}

// Authenticate implements auth.Authenticator. A token is good that
//
//   - is signed with a key that the provider publishes;
//   - has the issuer as iss, the audience in aud, exp in the future and nbf, if there is
//     one, in the past, with 30 s of leeway, and as sub 1 to 255 printable characters;
//   - is an access token. An ID token tells a client who its user is, and is not for
//     others to act upon: what calls itself one (by its type, or by the hashes that only
//     ID tokens have), a refresh token or a logout token is refused. So is a token that
//     is bound to a key of its holder's, which nobody would ask for here;
//   - lists the required role, else it is a 403.
//
// The caller's name is auth.OIDCPrefix and the subject.
func (p *Provider) Authenticate(r *http.Request) (auth.Principal, error) {
	token, apiErr := auth.BearerAnyCase(r)
	if apiErr != nil {
		return auth.Principal{}, p.hint(apiErr)
	}
	var named jwt.RegisteredClaims
	if len(token) > maxToken {
		return auth.Principal{}, p.wrongToken(nil)
	}
	if _, _, err := jwt.NewParser().ParseUnverified(token, &named); err != nil || named.Issuer != p.cfg.Issuer {
		return auth.Principal{}, p.wrongToken(err)
	}
	ctx := r.Context()
	check := &signature{keys: p.keys}
	verifier := gooidc.NewVerifier(p.cfg.Issuer, check, &gooidc.Config{
		ClientID: p.cfg.Audience, SkipClientIDCheck: p.cfg.Audience == "",
		SupportedSigningAlgs: algorithms(), SkipExpiryCheck: true, // as its leeway is not ours
	})
	verified, err := verifier.Verify(ctx, token)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return auth.Principal{}, ctx.Err()
	case check.away != nil:
		return auth.Principal{}, auth.Unchecked(check.away)
	default:
		return auth.Principal{}, p.wrongToken(err)
	}
	var said claims
	if err := verified.Claims(&said); err != nil {
		return auth.Principal{}, p.wrongToken(err)
	}
	subject, err := said.check(check.kind, p.cfg.Issuer, p.cfg.Audience, p.keys.now())
	if err != nil {
		return auth.Principal{}, p.wrongToken(err)
	}
	return p.principal(subject, said.roles(p.cfg.RoleClaim))
}

// principal is the holder of a good token.
func (p *Provider) principal(subject string, roles []string) (auth.Principal, error) {
	who := auth.Principal{Name: auth.OIDCPrefix + subject, Scopes: auth.ScopeCreate | auth.ScopeUse}
	if role := p.cfg.RequiredRole; role != "" && !slices.Contains(roles, role) {
		return auth.Principal{}, api.Errorf(http.StatusForbidden, api.CodeForbidden, "insufficient permissions: missing role %s", role).
			WithHint("the administrator of %s gives roles", p.cfg.Issuer)
	}
	if role := p.cfg.AdminRole; role != "" && slices.Contains(roles, role) {
		who.Scopes |= auth.ScopeAdmin
	}
	return who, nil
}

// wrongToken is the same answer whatever is wrong, which is for the log.
func (p *Provider) wrongToken(why error) error {
	return p.hint(auth.Unauthorized("Invalid or expired token").WithCause(why))
}

func (p *Provider) hint(e *api.Error) error {
	if p.cfg.Audience == "" {
		return e.WithHint("send an access token of %s as \"Authorization: Bearer <token>\"", p.cfg.Issuer)
	}
	return e.WithHint("send an access token of %s for the audience %s as \"Authorization: Bearer <token>\"", p.cfg.Issuer, p.cfg.Audience)
}
