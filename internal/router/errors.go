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
	"github.com/volcano-sh/agentcube/internal/httpguard"
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
	if e.Code == api.CodeServerNotListening {
		return e
	}
	switch e.Status {
	case http.StatusNotFound:
		return api.Errorf(http.StatusNotFound, api.CodeTemplateNotFound, `%ss.agentcube.volcano.sh "%s/%s" not found`,
			strings.ToLower(inv.kind), inv.namespace, inv.name).WithHint("%s", e.Hint).WithCause(err)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
		http.StatusServiceUnavailable, http.StatusInsufficientStorage, httpserve.StatusClientClosedRequest:
		return e
	}
	return api.Errorf(http.StatusInternalServerError, e.Code, "internal server error").WithCause(err)
}

// unreachable is the answer for a call that got none from its sandbox.
func (rt *Router) unreachable(ctx context.Context, c *call, err error) error {
	if ctx.Err() != nil {
		return afterRevocation(ctx, err) // or the client's doing
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge || errors.Is(err, httpguard.ErrStalled) {
		return err // the client's too
	}
	if bad, ok := errors.AsType[*brokenBody](err); ok {
		return api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, "Invalid request body").WithCause(bad)
	}
	// While the session is being paused every failure is that pause's doing.
	released := rt.targets.awaitRelease(ctx, c.session)
	if released == nil && (brokeOff(err) || c.agent && errors.Is(err, sandbox.ErrRefused)) {
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
	for {
		var poll <-chan time.Time
		if rt.cfg.MaxRecordAge > 0 { // the news is only in the store
			_ = rt.targets.reread(ctx, t)
			poll = time.After(endPoll)
		}
		select {
		case <-poll:
			continue
		case <-t.done:
		case <-timer.C:
		case <-ctx.Done():
		}
		return
	}
}

// refusal is an answer that the Router gives in PicoD's stead: what PicoD would
// have said of the same request, in its shape.
type refusal struct {
	status int
	text   string
	detail string
	reason string // PicoD's stable code
}

// escapes is the refusal of a path that leads out of the workspace.
func escapes() *refusal {
	return &refusal{status: http.StatusBadRequest, reason: "PATH_ESCAPES_WORKSPACE", text: "Invalid path: path escapes workspace jail"}
}

// verify refuses requests to a key-bound session that its key did not sign, so
// that strangers neither reach the sandbox nor keep the session from idling.
func verify(key *rsa.PublicKey, r *http.Request) *refusal {
	no := &refusal{status: http.StatusUnauthorized, text: "Invalid token", reason: auth.ReasonInvalidToken,
		detail: "JWT verification failed: the session has no usable key"}
	if key == nil {
		return no
	}
	// Several headers are one list, and so no token: whoever is behind might look at
	// another one of them.
	err := auth.VerifyRequest(key, strings.Join(r.Header.Values("Authorization"), ", "), time.Now())
	if err == nil {
		return nil
	}
	no.detail = "JWT verification failed"
	if e, ok := errors.AsType[*auth.RequestError](err); ok {
		no.text, no.detail, no.reason = e.Text, e.Detail, e.Reason
	}
	return no
}

// write answers the request that was refused.
func (f *refusal) write(w http.ResponseWriter, r *http.Request) {
	httpserve.WriteJSON(w, f.status, struct {
		Error     string `json:"error"`
		Code      int    `json:"code"`
		Detail    string `json:"detail,omitempty"`
		Reason    string `json:"reason"`
		RequestID string `json:"requestId"`
	}{f.text, f.status, f.detail, f.reason, httpserve.RequestID(r.Context())})
}
