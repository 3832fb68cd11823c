package auth

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/volcano-sh/agentcube/api"
)

// Scopes is a set of what a caller may do. Whatever it is, it is about what the
// caller owns, except for ScopeAdmin.
type Scopes uint8

// The scopes.
const (
	// ScopeCreate: make sessions, from templates, checkpoints and other sessions,
	// and checkpoints.
	ScopeCreate Scopes = 1 << iota
	// ScopeUse: see and end sessions and checkpoints, pause and resume sessions,
	// and run code in those that the Router signs for.
	ScopeUse
	// ScopeAdmin: make, see and revoke tokens; see and end sessions, and see and
	// remove checkpoints, of all owners. It opens nobody's session: what is in
	// there stays its owner's.
	ScopeAdmin

	// AllScopes is what the holder of the local token has.
	AllScopes = ScopeCreate | ScopeUse | ScopeAdmin
)

// scopeNames are the names of the bits, from the lowest.
var scopeNames = [...]api.Scope{api.ScopeCreate, api.ScopeUse, api.ScopeAdmin}

// ParseScopes is the set of the scopes with these names. The error is about the
// first that does not exist, or is there twice; its text can be shown to the
// caller.
func ParseScopes(names []api.Scope) (Scopes, error) {
	var set Scopes
	for _, name := range names {
		bit := slices.Index(scopeNames[:], name)
		if bit < 0 {
			return 0, fmt.Errorf("there is no scope %.40q; there are create, use and admin", name)
		}
		if set.Has(1 << bit) {
			return 0, fmt.Errorf("the scope %s is there twice", name)
		}
		set |= 1 << bit
	}
	return set, nil
}

// Has reports whether all of want are in s.
func (s Scopes) Has(want Scopes) bool { return s&want == want }

// Names are the scopes of s, in a fixed order.
func (s Scopes) Names() []api.Scope {
	names := []api.Scope{}
	for bit, name := range scopeNames {
		if s.Has(1 << bit) {
			names = append(names, name)
		}
	}
	return names
}

// String is the names, separated by commas.
func (s Scopes) String() string { return s.join(",") }

func (s Scopes) join(sep string) string {
	var words []string
	for _, name := range s.Names() {
		words = append(words, string(name))
	}
	return strings.Join(words, sep)
}

// Need returns nil when p has at least one of the scopes, and a 403 that names
// them otherwise.
func (p Principal) Need(oneOf Scopes) error {
	if p.Scopes&oneOf != 0 {
		return nil
	}
	return api.Errorf(http.StatusForbidden, api.CodeForbidden, "the token lacks the scope %s", oneOf.join(" or ")).
		WithHint("`agentcube token create`, by an administrator, makes a token that has it")
}
