package auth

import (
	"context"
	"net/http"
	"strings"

	"github.com/volcano-sh/agentcube/api"
)

// Principal is an authenticated caller.
type Principal struct {
	// Name identifies the caller and is what sessions are owned by: "local"
	// for the holder of the local token, the token's name for that of another,
	// ServiceAccountPrefix + "<ns>:<name>" on Kubernetes, OIDCPrefix + the subject for
	// those whom an OpenID provider knows. It is never empty for an authenticated
	// caller.
	Name string
	// Scopes say what the caller may do.
	Scopes Scopes
}

// What the names begin with of principals who are known elsewhere. No token of ours
// can be called so.
const (
	ServiceAccountPrefix = "system:serviceaccount:"
	OIDCPrefix           = "oidc:"
)

// Owns reports whether what belongs to owner is p's own, to use as its scopes
// allow. What belongs to nobody (an empty owner) is nobody's.
func (p Principal) Owns(owner string) bool { return owner != "" && p.Name == owner }

// Sees reports whether p may know of what belongs to owner, and end it. That is
// less than using it: an administrator sees everything.
func (p Principal) Sees(owner string) bool { return p.Owns(owner) || p.Scopes.Has(ScopeAdmin) }

// SeenOnly tells an administrator why a session that there is cannot be found
// where it would be used. Others are told nothing.
const SeenOnly = "it is another owner's: an administrator sees and ends it, and does nothing else with it"

// Authenticator finds out who sent a request. It is safe for concurrent use.
type Authenticator interface {
	// Authenticate returns the caller of r. The error is an *api.Error that
	// can be sent to the caller: 401 when the credentials are missing,
	// malformed or wrong, 503 when they could not be checked.
	Authenticate(r *http.Request) (Principal, error)
}

type principalKey struct{}

// WithPrincipal returns a context that carries p.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext returns the principal that WithPrincipal put into ctx.
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}

type authorizationKey struct{}

// WithAuthorization returns a context that carries the Authorization header of an
// authenticated caller, for who asks something of another server in the caller's name.
func WithAuthorization(ctx context.Context, header string) context.Context {
	return context.WithValue(ctx, authorizationKey{}, header)
}

// AuthorizationFrom returns what WithAuthorization put into ctx, or "".
func AuthorizationFrom(ctx context.Context) string {
	header, _ := ctx.Value(authorizationKey{}).(string)
	return header
}

// Bearer takes the token out of an Authorization header: exactly "Bearer",
// one space and a text without spaces. It returns the reason, in the words
// that older clients know, when the header is not of this form.
func Bearer(r *http.Request) (string, *api.Error) {
	return bearer(r, func(scheme string) bool { return scheme == "Bearer" })
}

// BearerAnyCase is Bearer where "Bearer" may be spelt "bearer", as those callers who
// have their tokens from an OpenID provider always could.
func BearerAnyCase(r *http.Request) (string, *api.Error) {
	return bearer(r, func(scheme string) bool { return strings.EqualFold(scheme, "Bearer") })
}

func bearer(r *http.Request, known func(scheme string) bool) (string, *api.Error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 || (len(values) == 1 && values[0] == "") {
		return "", Unauthorized("Missing authorization header")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !known(scheme) || strings.Contains(token, " ") {
		return "", Unauthorized("Invalid authorization header format")
	}
	return token, nil
}

// WrongToken is the answer to a token that is not valid. It is the same one
// whether the token never was, has expired or was revoked.
func WrongToken() *api.Error {
	return Unauthorized("Invalid or expired token").
		WithHint("the local token is in the file that \"agentcube config print\" names as tokenFile; " +
			"\"agentcube token ls\" lists the others that are valid")
}

// Unauthorized is a 401 with a text for the caller.
func Unauthorized(text string) *api.Error {
	return api.Errorf(http.StatusUnauthorized, api.CodeUnauthorized, "%s", text)
}

// Unchecked is the answer when a token could not be checked: a 503, so that the
// caller tries again. why is logged and not told.
func Unchecked(why error) *api.Error {
	e := api.Errorf(http.StatusServiceUnavailable, api.CodeUnavailable, "the token could not be checked").WithCause(why)
	e.RetryAfter = 1
	return e
}
