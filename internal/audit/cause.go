package audit

import (
	"context"

	"github.com/volcano-sh/agentcube/api/audit"
)

// Recorder is what the planes need of a Log.
type Recorder interface {
	// Append records an event. It does not fail; see Log.
	Append(e audit.Event)
	// Ready reports whether what would begin now would be recorded. Its error
	// wraps ErrUnavailable.
	Ready() error
}

// Nothing is a Recorder of nothing, for who has turned the record off.
type Nothing struct{}

// Append implements Recorder.
func (Nothing) Append(audit.Event) {}

// Ready implements Recorder.
func (Nothing) Ready() error { return nil }

// Cause is why something is done: who asked for it, in which request.
type Cause struct {
	Actor     string
	RequestID string
	From      string
}

type causeKey struct{}

// WithCause says in ctx why what is done with it is done.
func WithCause(ctx context.Context, c Cause) context.Context {
	return context.WithValue(ctx, causeKey{}, c)
}

// CauseOf is the cause of ctx. What nobody has asked for AgentCube does by itself.
func CauseOf(ctx context.Context) Cause {
	if c, ok := ctx.Value(causeKey{}).(Cause); ok {
		return c
	}
	return Cause{Actor: audit.ActorSystem}
}

// Of is an event with the cause of ctx.
func Of(ctx context.Context, action audit.Action) audit.Event {
	c := CauseOf(ctx)
	return audit.Event{Action: action, Actor: c.Actor, RequestID: c.RequestID, From: c.From}
}
