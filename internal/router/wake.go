package router

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// maxWakes bounds how often one request wakes its session, if that is paused
// again each time before the request reaches it.
const maxWakes = 3

// Hold makes new requests to a session wait until release is called, for a
// session that is about to be paused. With idle it does so only when no request
// is under way, and returns false otherwise. A session is held once at a time.
func (rt *Router) Hold(id string, idle bool) (release func(), ok bool) {
	return rt.targets.hold(id, idle)
}

func (ts *targets) hold(id string, idle bool) (release func(), ok bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.held[id] != nil {
		return nil, false
	}
	if t := ts.byID[id]; idle && (ts.wanted[id] > 0 || t != nil && t.inFlight > 0) {
		return nil, false
	}
	over := make(chan struct{})
	ts.held[id] = over
	return func() {
		ts.mu.Lock()
		delete(ts.held, id)
		ts.mu.Unlock()
		close(over)
	}, true
}

// awaitRelease waits while a session is held.
func (ts *targets) awaitRelease(ctx context.Context, id string) error {
	ts.mu.Lock()
	held := ts.held[id]
	ts.mu.Unlock()
	if held == nil {
		return nil
	}
	timer := time.NewTimer(ts.rt.cfg.WakeTimeout)
	defer timer.Stop()
	select {
	case <-held:
		return nil
	case <-timer.C:
		return asleep()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// want keeps a session that a request is waking from being held as idle before
// the request has entered it. It is over when the returned function is called.
func (ts *targets) want(id string) (enough func()) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.wanted[id]++
	return func() {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if ts.wanted[id]--; ts.wanted[id] == 0 {
			delete(ts.wanted, id)
		}
	}
}

// enter counts a request as under way. It refuses when the session is held or
// has stopped running since it was found: the request then looks once more.
func (ts *targets) enter(t *target) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.held[t.id] != nil || ts.byID[t.id] != t {
		return false
	}
	t.inFlight++
	ts.watchLocked(t)
	return true
}

func (ts *targets) leave(t *target) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t.inFlight--
	t.used = time.Now()
}

// awaken returns the target of a session that did not run when it was looked
// for: of one that is paused it waits for the resume. For others the error says
// why there is none. The caller wants the session meanwhile.
func (rt *Router) awaken(ctx context.Context, rec session.Session) (*target, session.Session, error) {
	for range maxWakes {
		if rec.State != api.StatePaused || rt.cfg.Waker == nil {
			return nil, rec, rt.notRunning(rec)
		}
		if err := rt.wake(ctx, rec.ID); err != nil {
			return nil, rec, err
		}
		t, now, err := rt.targets.find(ctx, rec.ID)
		if err != nil || t != nil {
			return t, now, err
		}
		rec = now
	}
	return nil, rec, paused()
}

// wake asks for a session to run. Only this wait is bounded; the resume goes on.
func (rt *Router) wake(ctx context.Context, id string) error {
	timed, cancel := context.WithTimeout(ctx, rt.cfg.WakeTimeout)
	defer cancel()
	err := rt.cfg.Waker.Wake(timed, id)
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		return asleep().WithCause(err)
	}
	if err != nil {
		return fmt.Errorf("wake session: %w", err)
	}
	return nil
}

// asleep is the answer to a request that has waited too long for a session to
// run.
func asleep() *api.Error {
	e := api.Errorf(http.StatusGatewayTimeout, api.CodeSandboxTimeout, "the session did not wake up in time")
	e.RetryAfter = 1
	return e
}

// finish counts a call as over.
func (c *call) finish(ctx context.Context) {
	c.target.activity.end(ctx)
	c.target.rt.targets.leave(c.target)
}

// retryAwake sends a call that has met a pause before anything was sent once
// more, to the session as it is when it has woken.
func (rt *Router) retryAwake(r *http.Request, c *call) (*http.Response, error) {
	ctx := r.Context()
	defer rt.targets.want(c.session)()
	if err := rt.wake(ctx, c.session); err != nil {
		return nil, err
	}
	t, rec, err := rt.targets.find(ctx, c.session)
	if err != nil {
		return nil, err
	}
	switch {
	case t == nil && rec.State == api.StatePaused:
		return nil, paused()
	case t == nil:
		return nil, rt.notRunning(rec)
	}
	if old := c.target; t != old {
		if !rt.targets.enter(t) {
			return nil, paused()
		}
		if err := t.activity.begin(ctx); err != nil {
			rt.targets.leave(t)
			return nil, err
		}
		c.finish(ctx) // with the old one
		c.target = t
	}
	if r, err = resigned(r, c); err != nil {
		return nil, err
	}
	return t.transport.RoundTrip(r)
}

// resigned is a request with a token of its own, if it is the Router that signs.
func resigned(r *http.Request, c *call) (*http.Request, error) {
	if c.authorization == "" {
		return r, nil
	}
	token, err := c.target.tokens.take()
	if err != nil {
		return nil, unsigned(err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return r, nil
}

// paused is the answer to a request that was cut off by a pause.
func paused() *api.Error {
	e := api.Errorf(http.StatusConflict, api.CodeSessionPaused, "the session was paused while the request ran").
		WithHint("send it again: the session wakes up")
	e.RetryAfter = 1
	return e
}

// roundTrip sends a call. When the sandbox turns out to be paused before
// anything was sent, the session is woken, and the call sent once more. What has
// reached a sandbox that was paused then is not: it may have been done, and
// whoever paused the session would find it awake.
func (rt *Router) roundTrip(r *http.Request) (*http.Response, error) {
	c := callOf(r.Context())
	a := &attempt{}
	first := r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: a.gotConn}))
	if r.Body != nil && r.Body != http.NoBody {
		first.Body = &unsent{ReadCloser: r.Body, attempt: a}
	}
	resp, err := c.target.transport.RoundTrip(first)
	if err == nil || !errors.Is(err, sandbox.ErrPaused) || rt.cfg.Waker == nil || a.begun() {
		return resp, a.blame(err)
	}
	return rt.retryAwake(r, c)
}
