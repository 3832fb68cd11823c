package auth

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/kubeauth"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// apiAudience is that of the API server itself.
const apiAudience = "https://kubernetes.default.svc"

func caller(name string) auth.Principal {
	return auth.Principal{Name: name, Scopes: auth.ScopeCreate | auth.ScopeUse}
}

// TestServiceAccounts: they are known by tokens for one of our audiences, and only by
// these.
func TestServiceAccounts(t *testing.T) {
	ns := namespace(t)
	user := account(t, server.admin, ns, "sdk.client")
	plain, own := func(*kubeauth.Config) {}, func(c *kubeauth.Config) { c.Audiences = append(c.Audiences, apiAudience) }
	for _, test := range []struct {
		name      string
		config    func(*kubeauth.Config)
		audiences []string
		ok        bool
	}{
		{"ours", plain, []string{"agentcube"}, true},
		{"ours among others", plain, []string{"other", "agentcube"}, true},
		{"another's", plain, []string{"agentcube-other"}, false},
		{"the API server's", plain, nil, false},
		{"the API server's, where that is one of ours", own, nil, true},
		{"ours, where that of the API server is one too", own, []string{"agentcube"}, true},
		{"another's, where that of the API server is one too", own, []string{"agentcube-other"}, false},
	} {
		c, _ := newCluster(t, server.config, test.config)
		who, err := c.Authenticate(request(t.Context(), token(t, server.admin, ns, "sdk.client", test.audiences...)))
		if test.ok {
			if diff := cmp.Diff(caller(user), who); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", test.name, err, diff)
			}
			continue
		}
		e := wantError(t, test.name, err, 401, api.CodeUnauthorized, "Invalid or expired token")
		if !strings.Contains(e.Hint, "--audience agentcube") {
			t.Errorf("%s: the hint is %q", test.name, e.Hint)
		}
	}
}

// signed is a token of a service account as the API server makes them, but for what
// change does to its claims.
func signed(t *testing.T, ns, name string, change func(jwt.MapClaims)) string {
	t.Helper()
	account, err := server.admin.CoreV1().ServiceAccounts(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(server.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM(pem)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": apiAudience, "sub": auth.ServiceAccountPrefix + ns + ":" + name, "aud": []string{"agentcube"},
		"iat": now.Add(-2 * time.Hour).Unix(), "nbf": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": ns, "serviceaccount": map[string]any{"name": name, "uid": string(account.UID)}},
	}
	change(claims)
	out, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestInvalidTokens: whatever is wrong with a token, the answer is the same; what is no
// service account's at first sight is not shown to the API server.
func TestInvalidTokens(t *testing.T) {
	ns := namespace(t)
	account(t, server.admin, ns, "gone")
	deleted := token(t, server.admin, ns, "gone", "agentcube")
	if err := server.admin.CoreV1().ServiceAccounts(ns).Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	user := account(t, server.admin, ns, "there")
	good := token(t, server.admin, ns, "there", "agentcube")
	set := func(name string, value any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = value } }
	c, asked := newCluster(t, server.config, nil)
	for name, valid := range map[string]string{
		"made by the API server": good, "made here": signed(t, ns, "there", func(jwt.MapClaims) {}),
		"under another name": signed(t, ns, "there", set("sub", auth.ServiceAccountPrefix+ns+":other")), // which the API server does not look at
	} {
		if who, err := c.Authenticate(request(t.Context(), valid)); err != nil || who.Name != user {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	for _, test := range []struct {
		name, token string
		shown       bool
	}{
		{"expired", signed(t, ns, "there", set("exp", time.Now().Add(-time.Hour).Unix())), true},
		{"not yet valid", signed(t, ns, "there", set("nbf", time.Now().Add(time.Hour).Unix())), true},
		{"of another issuer", signed(t, ns, "there", set("iss", "https://issuer.example")), true},
		{"of an account that was deleted", deleted, true},
		{"with another signature", good[:len(good)-8] + "AAAAAAAA", true},
		{"of a user", signed(t, ns, "there", set("sub", "admin")), false},
		{"without a subject", signed(t, ns, "there", func(c jwt.MapClaims) { delete(c, "sub") }), false},
		{"opaque", "ac_0123456789abcdefghijklmnopqrstuvwxyz", false},
		{"three parts", "a.b.c", false},
		{"empty", "", false},
		{"long", good + strings.Repeat("A", 16<<10), false},
	} {
		before := asked.of(reviews)
		_, err := c.Authenticate(request(t.Context(), test.token))
		wantError(t, test.name, err, 401, api.CodeUnauthorized, "Invalid or expired token")
		if shown := asked.of(reviews) - before; (shown == 1) != test.shown || shown > 1 {
			t.Errorf("%s: shown to the API server %d times", test.name, shown)
		}
		_, _ = c.Authenticate(request(t.Context(), test.token))
		if again := asked.of(reviews) - before; again > 1 {
			t.Errorf("%s: shown %d times", test.name, again)
		}
	}
	_, err := c.Authenticate(&http.Request{})
	wantError(t, "none", err, 401, api.CodeUnauthorized, "Missing authorization header")
	_, err = c.Authenticate(&http.Request{Header: http.Header{"Authorization": {"Basic " + good}}})
	wantError(t, "basic", err, 401, api.CodeUnauthorized, "Invalid authorization header format")
}

// TestReviewedOnce: one token that comes often, and often at once, is shown to the API
// server once.
func TestReviewedOnce(t *testing.T) {
	ns := namespace(t)
	user := account(t, server.admin, ns, "busy")
	busy := token(t, server.admin, ns, "busy", "agentcube")
	c, asked := newCluster(t, server.config, nil)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 10 {
				if who, err := c.Authenticate(request(t.Context(), busy)); err != nil || who.Name != user {
					t.Errorf("%+v, %v", who, err)
				}
			}
		})
	}
	wg.Wait()
	if n, m := asked.of(reviews), asked.of(access); n != 1 || m != 1 {
		t.Errorf("%d reviews of the token, %d of access, want 1 each", n, m)
	}
}

// TestDeletedAccount: who has been let in is not for long once the account is deleted.
func TestDeletedAccount(t *testing.T) {
	ns := namespace(t)
	account(t, server.admin, ns, "leaving")
	leaving := token(t, server.admin, ns, "leaving", "agentcube")
	c, _ := newCluster(t, server.config, func(c *kubeauth.Config) { c.CacheFor = 100 * time.Millisecond })
	if _, err := c.Authenticate(request(t.Context(), leaving)); err != nil {
		t.Fatal(err)
	}
	if err := server.admin.CoreV1().ServiceAccounts(ns).Delete(t.Context(), "leaving", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is refused", func() bool {
		_, err := c.Authenticate(request(t.Context(), leaving))
		return err != nil
	})
}

// TestUnchecked: where the token cannot be checked the answer is neither a yes nor a no.
func TestUnchecked(t *testing.T) {
	ns := namespace(t)
	account(t, server.admin, ns, "powerless")
	good := token(t, server.admin, ns, "powerless", "agentcube")
	// The server's own client may not review tokens.
	powerless := rest.AnonymousClientConfig(server.config)
	powerless.BearerToken, powerless.QPS = token(t, server.admin, ns, "powerless"), -1
	c, _ := newCluster(t, powerless, nil)
	_, err := c.Authenticate(request(t.Context(), good))
	if e := wantError(t, "forbidden", err, 503, api.CodeUnavailable, "could not be checked"); e.RetryAfter == 0 {
		t.Error("forbidden: there is no Retry-After")
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	c, _ = newCluster(t, server.config, nil)
	if _, err := c.Authenticate(request(gone, good)); !errors.Is(err, context.Canceled) {
		t.Errorf("of a caller who has left: %v", err)
	}
}

// TestAPIServerStopped: who was just let in goes on, for a while; all others have to
// wait.
func TestAPIServerStopped(t *testing.T) {
	stopping, err := cluster.Start(t.Context(), cluster.Options{Binaries: server.binaries})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValue(stopping.Stop)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	config, admin, err := connect(stopping)
	if err != nil {
		t.Fatal(err)
	}
	user := account(t, admin, "default", "known")
	known, unknown := token(t, admin, "default", "known", "agentcube"), token(t, admin, "default", "known", "agentcube")
	c, _ := newCluster(t, config, func(c *kubeauth.Config) { c.CacheFor = 2 * guard })
	brief, _ := newCluster(t, config, func(c *kubeauth.Config) { c.CacheFor = time.Nanosecond })
	of := auth.TemplateRef{Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python"}
	for _, c := range []*kubeauth.Cluster{c, brief} {
		if _, err := c.Authenticate(request(t.Context(), known)); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, "use", c.Authorize(t.Context(), caller(user), auth.VerbUse, of), 403, api.CodeForbidden, "you may not use")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if who, err := c.Authenticate(request(t.Context(), known)); err != nil || who.Name != user {
		t.Errorf("known: %+v, %v", who, err)
	}
	for name, check := range map[string]func() error{
		"unknown":            func() error { _, err := c.Authenticate(request(t.Context(), unknown)); return err },
		"known for too long": func() error { _, err := brief.Authenticate(request(t.Context(), known)); return err },
		"create":             func() error { return c.Authorize(t.Context(), caller(user), auth.VerbCreate, of) },
	} {
		if e := wantError(t, name, check(), 503, api.CodeUnavailable, "could not be"); e.RetryAfter == 0 {
			t.Errorf("%s: there is no Retry-After", name)
		}
	}
}
