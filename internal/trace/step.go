package trace

import (
	"context"
	"net/http"
)

// Kind is where the other side of a step is.
type Kind int

// The kinds.
const (
	Inside Kind = iota // there is none
	Server             // it has asked for the step
	Client             // it is asked by the step
)

// Tracer records steps. It is safe for concurrent use and does not block.
type Tracer interface {
	// Begin begins a step that is part of parent, or, when that is not valid, of
	// none. remote says that another process told of the parent, which may be
	// anybody.
	Begin(name string, kind Kind, parent Parent, remote bool) Span
}

// Span is a step under way.
type Span interface {
	// Parent is the step itself, for those that are part of it.
	Parent() Parent
	// Rename gives the step another name, one that is known only later.
	Rename(name string)
	// Note says something about the step.
	Note(key, value string)
	// End ends it, once; failure is "", or a word for why it failed.
	End(failure string)
}

type contextKey struct{}

// current is the step that a context is in.
type current struct {
	tracer Tracer // nil: nobody records
	parent Parent
}

func in(ctx context.Context) current {
	c, _ := ctx.Value(contextKey{}).(current)
	return c
}

// Serve begins a step that another process has asked for, which says that it is part
// of remote. Without a tracer ctx still knows remote.
func Serve(ctx context.Context, tracer Tracer, name string, remote Parent) (context.Context, Span) {
	if tracer == nil {
		if remote.Valid() {
			ctx = context.WithValue(ctx, contextKey{}, current{parent: remote})
		}
		return ctx, none{remote}
	}
	return begin(ctx, tracer, name, Server, remote, true)
}

// Start begins a step that is part of the one that ctx is in. Where that is none
// that is recorded, neither is this one.
func Start(ctx context.Context, name string, kind Kind) (context.Context, Span) {
	c := in(ctx)
	if c.tracer == nil {
		return ctx, none{c.parent}
	}
	return begin(ctx, c.tracer, name, kind, c.parent, false)
}

func begin(ctx context.Context, tracer Tracer, name string, kind Kind, parent Parent, remote bool) (context.Context, Span) {
	span := tracer.Begin(name, kind, parent, remote)
	return context.WithValue(ctx, contextKey{}, current{tracer, span.Parent()}), span
}

// Of is the step that ctx is in.
func Of(ctx context.Context) Parent { return in(ctx).parent }

// Carry puts to into the step that from is in, for work that outlives who asked for it.
func Carry(to, from context.Context) context.Context {
	if c := in(from); c.parent.Valid() {
		return context.WithValue(to, contextKey{}, c)
	}
	return to
}

// Inject says in the header of a request which step it is part of, in place of
// whatever it said.
func Inject(ctx context.Context, h http.Header) {
	h.Del(Header)
	if p := Of(ctx); p.Valid() {
		h.Set(Header, p.String())
	}
}

// none is a step that nobody records.
type none struct{ parent Parent }

func (n none) Parent() Parent    { return n.parent }
func (none) Rename(string)       {}
func (none) Note(string, string) {}
func (none) End(string)          {}
