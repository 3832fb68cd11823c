package kubeauth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

const (
	group       = "runtime.agentcube.volcano.sh"
	subresource = "sessions"
	// verbManage, on code interpreters of all namespaces, is what administrators may.
	verbManage auth.Verb = "manage"
)

// What callers are called in Roles who are no service accounts: UserPrefix and their
// name, so that nobody is taken for a user of the cluster's own, and one group for each
// kind. They are not in system:authenticated, whose members the API server knows.
const (
	UserPrefix  = "agentcube:"
	GroupOIDC   = "agentcube:oidc"
	GroupTokens = "agentcube:tokens"
)

// subject is what a caller is called in Roles. The groups of a service account follow
// from its name.
func subject(who auth.Principal) (user string, groups []string) {
	if namespace, _, ok := account(who.Name); ok {
		return who.Name, []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}
	}
	if strings.HasPrefix(who.Name, auth.OIDCPrefix) {
		return UserPrefix + who.Name, []string{GroupOIDC}
	}
	return UserPrefix + who.Name, []string{GroupTokens}
}

// Authorize implements auth.Authorizer.
func (c *Cluster) Authorize(ctx context.Context, who auth.Principal, verb auth.Verb, of auth.TemplateRef) error {
	// A digest, as what is asked for may be named at any length.
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", who.Name, verb, of.Kind, of.Namespace, of.Name))
	_, yes, err := c.rights.get(ctx, string(key[:]), func(ctx context.Context) (answer[struct{}], error) {
		yes, err := c.may(ctx, who, verb, of)
		return answer[struct{}]{yes: yes}, err
	})
	if err != nil {
		return fail(ctx, "review access", err, func(err error) error {
			e := api.Errorf(http.StatusServiceUnavailable, api.CodeUnavailable, "it could not be found out whether you may do that").WithCause(err)
			e.RetryAfter = 1
			return e
		})
	}
	if !yes {
		return refused(who, verb, of)
	}
	return nil
}

// resource is what templates of a kind are called in Roles.
func resource(kind string) string { return strings.ToLower(kind) + "s" }

// may asks the API server.
func (c *Cluster) may(ctx context.Context, who auth.Principal, verb auth.Verb, of auth.TemplateRef) (bool, error) {
	user, groups := subject(who)
	asked := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: string(verb), Group: group, Resource: resource(of.Kind), Subresource: subresource, Namespace: of.Namespace, Name: of.Name,
		},
	}}
	said, err := c.cfg.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, asked, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("create SubjectAccessReview: %w", err)
	}
	return said.Status.Allowed && !said.Status.Denied, nil
}

// refused is the 403. It is the same whether or not there is such a template.
func refused(who auth.Principal, verb auth.Verb, of auth.TemplateRef) error {
	user, _ := subject(who)
	what := resource(of.Kind) + "/" + subresource
	return api.Errorf(http.StatusForbidden, api.CodeForbidden, "you may not %s %s of %.253q in namespace %.63q", verb, what, of.Name, of.Namespace).
		WithHint("a Role in that namespace, bound to %s, allows it that has the rule "+
			`{apiGroups: [%s], resources: [%s], resourceNames: [%.253q], verbs: [%s]}`, user, group, what, of.Name, verb)
}
