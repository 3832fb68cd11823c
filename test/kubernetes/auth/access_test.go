package auth

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/kubeauth"
)

// grant makes a Role with a rule, and binds it.
func grant(t *testing.T, ns, name string, rule rbacv1.PolicyRule, to ...rbacv1.Subject) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: name}
	_, err := server.admin.RbacV1().Roles(ns).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.admin.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: to, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func rule(resource, name string, verbs ...string) rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{APIGroups: []string{"runtime.agentcube.volcano.sh"}, Resources: []string{resource}, Verbs: verbs}
	if name != "" {
		r.ResourceNames = []string{name}
	}
	return r
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: name}
}
func group(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: name}
}
func serviceAccount(ns, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: name}
}

// question is what somebody asks leave for.
type question struct {
	who, verb, kind, ns, name string
	may                       bool
}

// ask holds the answers to what they should be. Each is asked for anew.
func ask(t *testing.T, questions []question) {
	t.Helper()
	for _, q := range questions {
		c, _ := newCluster(t, server.config, nil)
		err := c.Authorize(t.Context(), caller(q.who), auth.Verb(q.verb), auth.TemplateRef{Kind: q.kind, Namespace: q.ns, Name: q.name})
		if q.may && err != nil {
			t.Errorf("%+v: %v", q, err)
		}
		if !q.may {
			wantError(t, fmt.Sprintf("%+v", q), err, 403, api.CodeForbidden, "you may not "+q.verb)
		}
	}
}

func sa(ns, name string) string { return auth.ServiceAccountPrefix + ns + ":" + name }

const (
	ci, ar   = api.KindCodeInterpreter, api.KindAgentRuntime
	sessions = "codeinterpreters/sessions"
)

// TestAccess: Roles say who may do what with sessions of which template.
func TestAccess(t *testing.T) {
	ns, other := namespace(t), namespace(t)
	grant(t, ns, "creator", rule(sessions, "python", "create"), serviceAccount(ns, "creator"))
	grant(t, ns, "both", rule(sessions, "", "create", "use"), group("system:serviceaccounts:"+other))
	grant(t, other, "all", rule("*/sessions", "", "*"), serviceAccount(ns, "all"))
	grant(t, ns, "template", rule("codeinterpreters", "", "*"), serviceAccount(ns, "reader"))
	grant(t, ns, "read", rule(sessions, "", "get", "list", "watch"), serviceAccount(ns, "reader"))
	ask(t, []question{
		{sa(ns, "creator"), "create", ci, ns, "python", true},
		{sa(ns, "creator"), "create", ci, ns, "python2", false},
		{sa(ns, "creator"), "create", ci, other, "python", false},
		{sa(ns, "creator"), "create", ar, ns, "python", false},
		{sa(ns, "creator"), "use", ci, ns, "python", false},
		{sa(other, "creator"), "create", ci, ns, "node", true}, // by its group
		{sa(other, "any"), "use", ci, ns, "node", true},
		{sa(other, "any"), "use", ar, ns, "node", false},
		{sa(other, "any"), "use", ci, other, "node", false},
		{sa(ns, "all"), "use", ar, other, "agent", true},
		{sa(ns, "all"), "create", ci, other, "python", true},
		{sa(ns, "reader"), "use", ci, ns, "python", false},
		{sa(ns, "reader"), "create", ci, ns, "python", false},
	})
}

// TestAccessOfOthers: callers who are no service accounts can be named in Roles, and
// are nobody whom the cluster knows by their name.
func TestAccessOfOthers(t *testing.T) {
	ns, lure := namespace(t), namespace(t)
	grant(t, ns, "person", rule(sessions, "", "use"), user("agentcube:oidc:Jane"))
	grant(t, ns, "people", rule(sessions, "", "create"), group(kubeauth.GroupOIDC))
	grant(t, ns, "tokens", rule("agentruntimes/sessions", "", "use"), group(kubeauth.GroupTokens))
	grant(t, lure, "lure", rule("*/sessions", "", "*"),
		user("alice"), user("oidc:Jane"), user("local"), group("system:authenticated"), group("system:unauthenticated"))
	ask(t, []question{
		{"oidc:Jane", "use", ci, ns, "python", true},
		{"oidc:Jane", "create", ci, ns, "python", true},
		{"oidc:Jane", "use", ar, ns, "agent", false},
		{"oidc:John", "create", ci, ns, "python", true},
		{"oidc:John", "use", ci, ns, "python", false},
		{"alice", "use", ar, ns, "agent", true},
		{"alice", "create", ci, ns, "python", false},
		{auth.LocalName, "use", ar, ns, "agent", true},
		{"oidc:Jane", "use", ci, lure, "python", false},
		{"alice", "use", ci, lure, "python", false},
		{auth.LocalName, "create", ci, lure, "python", false},
		{sa(ns, "any"), "create", ci, lure, "python", true},
	})
}

// TestHint: with the rule that a refusal names, it is allowed; nobody waits long for it.
func TestHint(t *testing.T) {
	ns := namespace(t)
	c, _ := newCluster(t, server.config, nil)
	of := auth.TemplateRef{Kind: ar, Namespace: ns, Name: "my.agent"}
	try := func() error { return c.Authorize(t.Context(), caller(sa(ns, "sdk")), auth.VerbUse, of) }
	e := wantError(t, "before", try(), 403, api.CodeForbidden, "you may not use agentruntimes/sessions")
	_, text, _ := strings.Cut(e.Hint, "has the rule ")
	var rule rbacv1.PolicyRule
	if err := yaml.UnmarshalStrict([]byte(text), &rule); err != nil {
		t.Fatalf("%q: %v", e.Hint, err)
	}
	if !strings.Contains(e.Hint, sa(ns, "sdk")) {
		t.Errorf("the hint does not say who: %q", e.Hint)
	}
	grant(t, ns, "hint", rule, serviceAccount(ns, "sdk"))
	eventually(t, "it is allowed", func() bool { return try() == nil })
}

// TestAskedOnce: the rights of a caller are asked for once, however many requests come.
func TestAskedOnce(t *testing.T) {
	ns := namespace(t)
	grant(t, ns, "both", rule(sessions, "", "create", "use"), serviceAccount(ns, "busy"))
	c, asked := newCluster(t, server.config, nil)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for _, name := range []string{"python", "node"} {
				if err := c.Authorize(t.Context(), caller(sa(ns, "busy")), auth.VerbUse, auth.TemplateRef{Kind: ci, Namespace: ns, Name: name}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := asked.of(access); n != 2 {
		t.Errorf("asked %d times, want once for each template", n)
	}
	// It is remembered for this caller, this verb and this template alone.
	for _, q := range []question{{who: sa(ns, "other"), verb: "use", name: "python"}, {who: sa(ns, "other"), verb: "use", name: "node"}} {
		err := c.Authorize(t.Context(), caller(q.who), auth.Verb(q.verb), auth.TemplateRef{Kind: ci, Namespace: ns, Name: q.name})
		wantError(t, q.who, err, 403, api.CodeForbidden, "you may not use")
	}
}

// TestAdministrators: who may manage the sessions of all namespaces is one, and who may
// do so in one namespace is not.
func TestAdministrators(t *testing.T) {
	ns := namespace(t)
	grant(t, ns, "manager", rule(sessions, "", "*"), serviceAccount(ns, "manager"))
	meta := metav1.ObjectMeta{Name: ns + "-administrator"}
	_, err := server.admin.RbacV1().ClusterRoles().Create(t.Context(),
		&rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule(sessions, "", "manage")}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{serviceAccount(ns, "administrator")},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]auth.Scopes{"manager": auth.ScopeCreate | auth.ScopeUse, "administrator": auth.AllScopes} {
		account(t, server.admin, ns, name)
		c, _ := newCluster(t, server.config, nil)
		who, err := c.Authenticate(request(t.Context(), token(t, server.admin, ns, name, "agentcube")))
		if err != nil || who.Scopes != want {
			t.Errorf("%s: %v, %v", name, who.Scopes, err)
		}
	}
}
