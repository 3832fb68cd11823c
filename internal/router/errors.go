package router

import (
	"context"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// maxEchoedID bounds how much of an unknown id an answer repeats; real ids
// have 36 characters.
const maxEchoedID = 128

func unknownSession(id string) *api.Error {
	if len(id) > maxEchoedID {
		id = id[:maxEchoedID]
	}
	return api.Errorf(http.StatusNotFound, api.CodeSessionNotFound, `sessions.agentcube.volcano.sh "%s" not found`, id)
}

// escapes is what PicoD says of such a path when it gets to see it.
func escapes() *api.Error {
	return api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, "Invalid path: path escapes workspace jail")
}

// notRunning is the answer for a session that cannot take requests now.
func (rt *Router) notRunning(rec session.Session) *api.Error {
	if !rec.Ended() {
		text := "the session is still being created"
		if rec.State != api.StatePending {
			text = "the session is " + string(rec.State)
		}
		e := api.Errorf(http.StatusConflict, api.CodeSessionNotReady, "%s", text)
		e.RetryAfter = 1
		return e
	}
	e := api.Errorf(http.StatusGone, api.CodeSessionEnded, `session "%s" has ended: %s`, rec.ID, rec.Fate)
	e.Fate, e.Hint = string(rec.Fate), rec.Reason
	if !rec.EndedAt.IsZero() {
		at := rt.cfg.Clock.Wall(rec.EndedAt)
		e.EndedAt = &at
	}
	return e
}

// createError is what the caller hears when no session could be made. An
// unknown template is named as Kubernetes would; what the caller can act on is
// passed on; the rest is internal.
func createError(inv invocation, err error) error {
	e := httpserve.AsError(err)
	switch e.Status {
	case http.StatusNotFound:
		return api.Errorf(http.StatusNotFound, api.CodeTemplateNotFound, `%ss.agentcube.volcano.sh "%s/%s" not found`,
			strings.ToLower(inv.kind), inv.namespace, inv.name).WithHint("%s", e.Hint).WithCause(err)
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
		http.StatusServiceUnavailable, http.StatusInsufficientStorage, httpserve.StatusClientClosedRequest:
		return e
	}
	return api.Errorf(http.StatusInternalServerError, e.Code, "internal server error").WithCause(err)
}

// unreachable is the answer for a call that got none from its sandbox.
func (rt *Router) unreachable(ctx context.Context, c *call, err error) error {
	if ctx.Err() != nil {
		return err // the client's doing
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return err
	}
	// While the session is being paused every failure is that pause's doing.
	released := rt.targets.awaitRelease(ctx, c.session)
	if released == nil && brokeOff(err) {
		rt.awaitEnd(ctx, c.target)
	}
	if answer, ok := errors.AsType[*api.Error](err); ok {
		return answer // of who could not wake the session
	}
	if rec, getErr := rt.cfg.Sessions.Get(ctx, c.session); getErr == nil && rec.Ended() {
		rt.targets.changed(rec)
		return rt.notRunning(rec).WithCause(err)
	}
	if c.target.wasPaused() || errors.Is(err, sandbox.ErrPaused) {
		return paused().WithCause(err)
	}
	if errors.Is(err, sandbox.ErrRefused) {
		return api.Errorf(http.StatusBadGateway, api.CodeSandboxUnreachable, "sandbox unreachable").WithCause(err)
	}
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || (ok && timeout.Timeout()) {
		return api.Errorf(http.StatusGatewayTimeout, api.CodeSandboxTimeout, "sandbox timeout").WithCause(err)
	}
	return api.Errorf(http.StatusServiceUnavailable, api.CodeSandboxUnreachable, "sandbox unreachable").WithCause(err)
}

// brokeOff reports whether err looks as if the sandbox had just ended.
func brokeOff(err error) bool {
	for _, e := range []error{
		sandbox.ErrNotRunning, sandbox.ErrPaused, sandbox.ErrNotFound, io.EOF, io.ErrUnexpectedEOF,
		io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// awaitEnd waits a moment for the news that the session of a target has ended,
// or is paused.
func (rt *Router) awaitEnd(ctx context.Context, t *target) {
	timer := time.NewTimer(rt.cfg.ExitGrace)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// verify refuses requests to a key-bound session that its key did not sign, so
// that strangers neither reach the sandbox nor keep the session from idling.
func verify(key *rsa.PublicKey, r *http.Request) *auth.RequestError {
	if key == nil {
		return &auth.RequestError{Text: "Invalid token", Detail: "JWT verification failed: the session has no usable key"}
	}
	err := auth.VerifyRequest(key, r.Header.Get("Authorization"), time.Now())
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*auth.RequestError](err); ok {
		return e
	}
	return &auth.RequestError{Text: "Invalid token", Detail: "JWT verification failed"}
}

// writeRefusal answers as PicoD would have answered the same request.
func writeRefusal(w http.ResponseWriter, e *auth.RequestError) {
	httpserve.WriteJSON(w, http.StatusUnauthorized, struct {
		Error  string `json:"error"`
		Code   int    `json:"code"`
		Detail string `json:"detail"`
	}{e.Text, http.StatusUnauthorized, e.Detail})
}
