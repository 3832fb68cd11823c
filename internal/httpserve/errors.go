package httpserve

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// StatusClientClosedRequest is logged when the client went away before the
// answer; nobody receives it.
const StatusClientClosedRequest = 499

// HandlerFunc is a handler that may fail before it has written an answer. Its
// error is answered by WriteError.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP implements http.Handler.
func (f HandlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := f(w, r); err != nil {
		WriteError(w, r, err)
	}
}

// WriteError answers r with err: the status, headers and body of the
// *api.Error that AsError finds for it. The cause is logged with the request
// id, and never sent.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := *AsError(err)
	e.RequestID = RequestID(r.Context())
	e.Timestamp = time.Now().UTC()
	e.Message = e.Text
	if i, ok := r.Context().Value(contextKey{}).(*requestInfo); ok {
		i.code = e.Code
	}
	logError(r, &e, err)
	if e.Status == StatusClientClosedRequest {
		w.WriteHeader(e.Status)
		return
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="agentcube"`)
	}
	WriteJSON(w, e.Status, &e)
}

func logError(r *http.Request, e *api.Error, err error) {
	level := slog.LevelDebug
	if e.Status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	loggerFrom(r.Context()).LogAttrs(r.Context(), level, "request failed", append(traceAttr(r.Context()),
		slog.String("requestId", e.RequestID), slog.Int("status", e.Status),
		slog.String("code", string(e.Code)), slog.Any("error", err))...)
}

// AsError finds the answer that belongs to an error. An *api.Error anywhere in
// err's chain is taken as it is; the errors of the packages below have answers
// of their own; anything else is an internal error whose text tells the caller
// nothing.
func AsError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return api.Errorf(http.StatusRequestEntityTooLarge, api.CodeBodyTooLarge,
			"request body is larger than %d bytes", tooLarge.Limit).WithCause(err)
	}
	if errors.Is(err, httpguard.ErrStalled) {
		return api.Errorf(http.StatusRequestTimeout, api.CodeRequestTimeout, "the request body did not arrive in time").WithCause(err)
	}
	for _, known := range []struct {
		is  error
		out *api.Error
	}{
		{session.ErrNotFound, api.Errorf(http.StatusNotFound, api.CodeSessionNotFound, "session not found")},
		{session.ErrBadCursor, api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, "malformed page token")},
		{session.ErrAway, away()},
		{session.ErrUnavailable, api.Errorf(http.StatusInternalServerError, api.CodeStoreFailed, "internal server error")},
		{sandbox.ErrFull, Overloaded()},
		{sandbox.ErrNoImage, api.Errorf(http.StatusInternalServerError, api.CodeImageNotFound, "the template's image was not found")},
		{sandbox.ErrNoCommand, api.Errorf(http.StatusUnprocessableEntity, api.CodeTemplateUnusable,
			"the template names no command, and neither does its image").WithHint("write the command into the template")},
		{sandbox.ErrPaused, api.Errorf(http.StatusConflict, api.CodeSessionPaused, "the session is paused")},
		{sandbox.ErrNoSnapshot, api.Errorf(http.StatusNotFound, api.CodeCheckpointNotFound, "the checkpoint is gone")},
		{sandbox.ErrBadSnapshot, api.Errorf(http.StatusGone, api.CodeCheckpointUnusable,
			"the checkpoint is damaged, or was made by another version or on another machine").WithHint("delete it, and make a new one")},
		{session.ErrNoCheckpoint, api.Errorf(http.StatusNotFound, api.CodeCheckpointNotFound, "checkpoint not found")},
		{sandbox.ErrUnsupported, api.Errorf(http.StatusNotImplemented, api.CodeUnsupported, "what makes the sandboxes here cannot do that")},
		{sandbox.ErrNotAllowed, api.Errorf(http.StatusServiceUnavailable, api.CodeSandboxNotAllowed,
			"this machine does not allow sandboxes").WithHint("`agentcube doctor`, run on it, says why and what to do")},
		{sandbox.ErrBadTemplate, api.Errorf(http.StatusUnprocessableEntity, api.CodeTemplateUnusable,
			"sandboxes of this template cannot be made").WithHint("the conditions of its resource, and the server's log, say why")},
		{audit.ErrUnavailable, api.Errorf(http.StatusServiceUnavailable, api.CodeAuditUnavailable,
			"the audit record cannot be written, and nothing is done unrecorded").WithHint("the server's log says why; most likely its disk is full")},
		{sandbox.ErrDiskFull, api.Errorf(http.StatusInsufficientStorage, api.CodeDiskFull, "there is no room on disk for the state of a session")},
		{context.DeadlineExceeded, api.Errorf(http.StatusGatewayTimeout, api.CodeSandboxTimeout, "request timed out")},
		{context.Canceled, api.Errorf(StatusClientClosedRequest, api.CodeUnavailable, "client closed the request")},
	} {
		if errors.Is(err, known.is) {
			return known.out.WithCause(err)
		}
	}
	return api.Errorf(http.StatusInternalServerError, api.CodeInternal, "internal server error").WithCause(err)
}

// away is the answer while a store on another machine cannot be reached.
func away() *api.Error {
	e := api.Errorf(http.StatusServiceUnavailable, api.CodeUnavailable, "the session store is away, please try again")
	e.RetryAfter = 1
	return e
}

// Overloaded is the 429 of every limit on concurrency, sandboxes or memory.
func Overloaded() *api.Error {
	e := api.Errorf(http.StatusTooManyRequests, api.CodeServerOverloaded, "server overloaded, please try again later")
	e.RetryAfter = 1
	return e
}
