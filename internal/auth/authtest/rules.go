package authtest

import (
	"context"
	"net/http"
	"sync"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

// Asked is a question to an [auth.Authorizer].
type Asked struct {
	Who  string
	Verb auth.Verb
	Of   auth.TemplateRef
}

// Rules is an [auth.Authorizer] that allows everything but what Refuse has taken away.
// Its zero value refuses nothing.
type Rules struct {
	mu      sync.Mutex
	refused map[auth.Verb]bool
	asked   []Asked
}

// Refuse refuses verbs, and no others, from now on; it forgets what was asked.
func (rs *Rules) Refuse(verbs ...auth.Verb) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.refused, rs.asked = map[auth.Verb]bool{}, nil
	for _, v := range verbs {
		rs.refused[v] = true
	}
}

// Asked are the questions since the last Refuse.
func (rs *Rules) Asked() []Asked {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return append([]Asked(nil), rs.asked...)
}

// Authorize implements auth.Authorizer.
func (rs *Rules) Authorize(_ context.Context, who auth.Principal, verb auth.Verb, of auth.TemplateRef) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.asked = append(rs.asked, Asked{who.Name, verb, of})
	if rs.refused[verb] {
		return api.Errorf(http.StatusForbidden, api.CodeForbidden, "you may not %s that", verb)
	}
	return nil
}
