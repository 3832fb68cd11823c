package auth

import "context"

// Verb is what somebody wants to do.
type Verb string

// What there is to do with the sessions of a template. Seeing and ending one's own
// needs nobody's leave.
const (
	// VerbCreate is to have sessions made from it, copies of them and checkpoints too.
	VerbCreate Verb = "create"
	// VerbUse is to pause and resume sessions, and to run code in those that the
	// Router signs for.
	VerbUse Verb = "use"
)

// TemplateRef names a template, which need not exist.
type TemplateRef struct {
	// Kind is api.KindCodeInterpreter or api.KindAgentRuntime.
	Kind, Namespace, Name string
}

// Authorizer decides what callers may do with sessions of templates, beside what their
// scopes and their being the owner say. It is safe for concurrent use.
type Authorizer interface {
	// Authorize returns nil when who may. The error is an *api.Error that can be sent
	// to the caller: 403 when not, 503 when it could not be found out; or that of ctx.
	Authorize(ctx context.Context, who Principal, verb Verb, of TemplateRef) error
}

// Everybody is the Authorizer that leaves it to scopes and owners.
type Everybody struct{}

// Authorize implements Authorizer.
func (Everybody) Authorize(context.Context, Principal, Verb, TemplateRef) error { return nil }
