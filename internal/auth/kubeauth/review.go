package kubeauth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

// maxToken bounds the tokens that are looked at; those of service accounts have some
// 1 KiB.
const maxToken = 16 << 10

// Authenticate implements auth.Authenticator. Who may do VerbManage with all sessions
// of the cluster is an administrator.
func (c *Cluster) Authenticate(r *http.Request) (auth.Principal, error) {
	token, apiErr := auth.Bearer(r)
	if apiErr != nil {
		return auth.Principal{}, c.hint(apiErr)
	}
	expires, ok := looksOurs(token)
	if !ok {
		return auth.Principal{}, c.wrongToken()
	}
	digest := sha256.Sum256([]byte(token))
	ctx := r.Context()
	who, yes, err := c.callers.get(ctx, string(digest[:]), func(ctx context.Context) (answer[auth.Principal], error) {
		return c.review(ctx, token, expires)
	})
	switch {
	case err != nil:
		return auth.Principal{}, fail(ctx, "review token", err, func(err error) error { return auth.Unchecked(err) })
	case !yes:
		return auth.Principal{}, c.wrongToken()
	}
	return who, nil
}

// looksOurs reports whether a text has the form of a service account's token, and when
// it says to expire. What has not is not shown to the API server: it may be somebody's
// token for another service. Nothing else is believed of what it says.
func looksOurs(token string) (expires time.Time, ok bool) {
	var claims jwt.RegisteredClaims
	if len(token) > maxToken {
		return expires, false
	}
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		return expires, false
	}
	if claims.ExpiresAt != nil {
		expires = claims.ExpiresAt.Time
	}
	return expires, strings.HasPrefix(claims.Subject, auth.ServiceAccountPrefix)
}

// review asks whose a token is. A yes is about a service account of this cluster.
func (c *Cluster) review(ctx context.Context, token string, expires time.Time) (answer[auth.Principal], error) {
	asked := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: c.cfg.Audiences}}
	said, err := c.cfg.Client.AuthenticationV1().TokenReviews().Create(ctx, asked, metav1.CreateOptions{})
	if err != nil {
		return answer[auth.Principal]{}, fmt.Errorf("create TokenReview: %w", err)
	}
	// What knows nothing of audiences leaves them out of its answer.
	ours := slices.ContainsFunc(said.Status.Audiences, func(a string) bool { return slices.Contains(c.cfg.Audiences, a) })
	user := said.Status.User.Username
	_, _, known := account(user)
	if !said.Status.Authenticated || !ours || !known {
		return answer[auth.Principal]{}, nil
	}
	who := auth.Principal{Name: user, Scopes: auth.ScopeCreate | auth.ScopeUse}
	admin, err := c.may(ctx, who, verbManage, auth.TemplateRef{Kind: api.KindCodeInterpreter})
	if err != nil {
		return answer[auth.Principal]{}, err
	}
	if admin {
		who.Scopes |= auth.ScopeAdmin
	}
	return answer[auth.Principal]{yes: true, value: who, until: expires}, nil
}

func (c *Cluster) wrongToken() error { return c.hint(auth.Unauthorized("Invalid or expired token")) }

// hint says how to get a token that is good here.
func (c *Cluster) hint(e *api.Error) error {
	return e.WithHint("send the token of a service account as \"Authorization: Bearer <token>\"; it has to be for the audience %s, as one of "+
		"`kubectl create token NAME --audience %s` is", strings.Join(c.cfg.Audiences, " or "), c.cfg.Audiences[0])
}
