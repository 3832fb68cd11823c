package router_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestAuthorize: who has no leave to use sessions of a template is refused, for
// sessions that are there and for one that would be made; strangers hear nothing of
// it, and where a session is bound to a key, the key alone decides.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	rules := &authtest.Rules{}
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {}, func(w *world, c *router.Config) {
		c.Authorizer = rules
		w.create = func(auth.Principal, string, string, string) (session.Session, error) {
			t.Error("a session is made")
			return session.Session{}, http.ErrNotSupported
		}
	})
	managed, bound := w.add(nil), w.add(keyBound(t))
	open := w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	use := authtest.Asked{Who: "alice", Verb: auth.VerbUse, Of: auth.TemplateRef{Kind: api.KindCodeInterpreter, Namespace: "default", Name: "python"}}
	rules.Refuse(auth.VerbUse)
	for name, header := range map[string][]string{
		"managed": as(managed, "alice"), "without key": as(open, "alice"), "new": {"Authorization", "alice"},
	} {
		rules.Refuse(auth.VerbUse)
		if got := w.do("POST", base+"/api/execute", "{}", header...); got.status != 403 || !strings.Contains(got.body, "you may not use") {
			t.Errorf("%s = %d %s", name, got.status, got.body)
		}
		if diff := cmp.Diff([]authtest.Asked{use}, rules.Asked()); diff != "" {
			t.Errorf("%s asks (-want +got):\n%s", name, diff)
		}
	}
	rules.Refuse(auth.VerbUse)
	if got := w.do("GET", base+"/", "", as(managed, "bob")...); got.status != 404 || len(rules.Asked()) != 0 {
		t.Errorf("of another owner = %d %s, having asked %v", got.status, got.body, rules.Asked())
	}
	if got := w.do("GET", base+"/", "", as(bound, sdkToken(t, keys().client))...); got.status != 200 || len(rules.Asked()) != 0 {
		t.Errorf("with the key = %d %s, having asked %v", got.status, got.body, rules.Asked())
	}
	if w.dials.Load() != 1 {
		t.Errorf("%d connections to sandboxes, want that with the key", w.dials.Load())
	}
	rules.Refuse(auth.VerbCreate)
	if got := w.do("GET", base+"/", "", as(managed, "alice")...); got.status != 200 {
		t.Errorf("with leave = %d %s", got.status, got.body)
	}
}

// TestCreateForbidden: that the Workload Manager gives no leave is told to the caller.
func TestCreateForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, func(w *world, _ *router.Config) {
		w.create = func(auth.Principal, string, string, string) (session.Session, error) {
			return session.Session{}, api.Errorf(http.StatusForbidden, api.CodeForbidden, "you may not").WithHint("do this")
		}
	})
	got := w.do("GET", base+"/", "", "Authorization", "alice")
	if want := failure("you may not", "FORBIDDEN", `"hint":"do this",`); got.status != 403 || blankTimes(got.body) != want {
		t.Errorf("%d %s", got.status, got.body)
	}
}
