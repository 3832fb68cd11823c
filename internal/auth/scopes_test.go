package auth_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

func TestScopes(t *testing.T) {
	for _, test := range []struct {
		names []api.Scope
		want  auth.Scopes
		text  string
		err   string
	}{
		{nil, 0, "", ""},
		{[]api.Scope{"create"}, auth.ScopeCreate, "create", ""},
		{[]api.Scope{"admin", "create"}, auth.ScopeAdmin | auth.ScopeCreate, "create,admin", ""},
		{[]api.Scope{"use", "admin", "create"}, auth.AllScopes, "create,use,admin", ""},
		{[]api.Scope{"use", "use"}, 0, "", "the scope use is there twice"},
		{[]api.Scope{"Use"}, 0, "", `there is no scope "Use"; there are create, use and admin`},
		{[]api.Scope{""}, 0, "", `there is no scope ""`},
		{[]api.Scope{"use,create"}, 0, "", `there is no scope "use,create"`},
		{[]api.Scope{api.Scope(strings.Repeat("x", 1000))}, 0, "", "there is no scope"},
	} {
		got, err := auth.ParseScopes(test.names)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || len(err.Error()) > 120 {
				t.Errorf("ParseScopes(%.20q): %v, want %q", test.names, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want || got.String() != test.text {
			t.Errorf("ParseScopes(%q) = %v, %v, want %v", test.names, got, err, test.text)
		}
		if again, err := auth.ParseScopes(got.Names()); err != nil || again != got {
			t.Errorf("%v goes to its names and back as %v, %v", got, again, err)
		}
	}
}

// TestNeed: one of the scopes is enough, and without one the answer names them.
func TestNeed(t *testing.T) {
	for have := range auth.AllScopes + 1 {
		for need := auth.Scopes(1); need <= auth.AllScopes; need++ {
			err := auth.Principal{Name: "ann", Scopes: have}.Need(need)
			if allowed := slices.ContainsFunc(have.Names(), func(s api.Scope) bool { return slices.Contains(need.Names(), s) }); allowed != (err == nil) {
				t.Errorf("with %q, where one of %q is needed: %v", have, need, err)
			}
			if err == nil {
				continue
			}
			e := httpserve.AsError(err)
			if e.Status != 403 || e.Code != api.CodeForbidden || e.Hint == "" {
				t.Errorf("%+v, want 403 FORBIDDEN", e)
			}
			for _, name := range need.Names() {
				if !strings.Contains(e.Text, string(name)) {
					t.Errorf("%q does not name the scope %s", e.Text, name)
				}
			}
		}
	}
}
