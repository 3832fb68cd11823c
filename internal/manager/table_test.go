package manager

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

// TestTableIsDescribed: the scopes that a route asks for are those that the
// description says, by which the tests in api walk all of them. Nothing else is
// open, and nothing is served that is not described.
func TestTableIsDescribed(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal([]byte(api.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	unnamed := func(path string) string { return regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "{}") }
	described := map[string]auth.Scopes{}
	for path, item := range doc.Paths {
		for method, node := range item {
			if !slices.Contains([]string{"get", "post", "delete", "put", "patch"}, method) {
				continue
			}
			var op struct{ Security []map[string][]api.Scope }
			if err := node.Decode(&op); err != nil {
				t.Fatal(err)
			}
			var oneOf auth.Scopes
			for _, scheme := range op.Security {
				scopes, err := auth.ParseScopes(scheme["bearer"])
				if err != nil {
					t.Errorf("%s %s: %v", method, path, err)
				}
				oneOf |= scopes
			}
			described[strings.ToUpper(method)+" "+unnamed(path)] = oneOf
		}
	}
	m := New(Config{Tokens: auth.NewTokens(nil, nil)})
	for _, r := range slices.Concat(m.table(), m.tokenTable()) {
		want, ok := described[unnamed(r.pattern)]
		if !ok || want != r.scopes || r.scopes == 0 {
			t.Errorf("%s needs one of %q, described (%v) is %q", r.pattern, r.scopes, ok, want)
		}
		delete(described, unnamed(r.pattern))
	}
	for op, scopes := range described {
		if scopes != 0 {
			t.Errorf("%s is described with the scopes %q, but not served", op, scopes)
		}
	}
	open := slices.Sorted(maps.Keys(described))
	if want := []string{"GET /health", "GET /health/live", "GET /health/ready", "GET /v1/openapi.yaml"}; !slices.Equal(open, want) {
		t.Errorf("open to everybody is %q, want %q", open, want)
	}
}
