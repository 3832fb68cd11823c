package api

import (
	"fmt"
	"time"
)

// Code is a stable, machine-readable error code. Codes are part of the API:
// they are added, never renamed and never given another meaning.
type Code string

// The codes that the control plane and the Router answer with. PicoD answers
// with an integer code, as its older clients expect, and puts its stable code
// into the field "reason".
const (
	CodeInvalidRequest      Code = "INVALID_REQUEST"       // 400: body, parameter or header is malformed
	CodeUnauthorized        Code = "UNAUTHORIZED"          // 401: no credentials, or none that are valid
	CodeForbidden           Code = "FORBIDDEN"             // 403: known principal, action not allowed; or Host/Origin refused
	CodeNotFound            Code = "NOT_FOUND"             // 404: no such path
	CodeTemplateNotFound    Code = "TEMPLATE_NOT_FOUND"    // 404: no such CodeInterpreter or AgentRuntime
	CodeSessionNotFound     Code = "SESSION_NOT_FOUND"     // 404: no such session, or it belongs to somebody else
	CodeCheckpointNotFound  Code = "CHECKPOINT_NOT_FOUND"  // 404: no such checkpoint, or it belongs to somebody else
	CodeTokenNotFound       Code = "TOKEN_NOT_FOUND"       // 404: no token of that name
	CodeNoEntryPoint        Code = "NO_ENTRY_POINT"        // 404: the template exposes no port for this path
	CodeRequestTimeout      Code = "REQUEST_TIMEOUT"       // 408: the body did not arrive in time
	CodeIdempotencyConflict Code = "IDEMPOTENCY_CONFLICT"  // 409: the key was used with another request
	CodeSessionNotReady     Code = "SESSION_NOT_READY"     // 409: the session is still being created, or paused
	CodeSessionPaused       Code = "SESSION_PAUSED"        // 409: the session was paused while the request ran
	CodeCheckpointExists    Code = "CHECKPOINT_EXISTS"     // 409: the name is taken
	CodeTokenExists         Code = "TOKEN_EXISTS"          // 409: the name is, or was, another token's
	CodeCheckpointUnusable  Code = "CHECKPOINT_UNUSABLE"   // 410: the checkpoint is damaged, or from another version or machine
	CodeSessionEnded        Code = "SESSION_ENDED"         // 410: the session has ended; field fate says why
	CodeBodyTooLarge        Code = "BODY_TOO_LARGE"        // 413: request body over the limit
	CodeIsolation           Code = "ISOLATION_UNAVAILABLE" // 422: the template demands more isolation than can be had
	CodeFileNotWritten      Code = "FILE_NOT_WRITTEN"      // 422: a file of the create request cannot be in the sandbox; no session was made
	CodeServerOverloaded    Code = "SERVER_OVERLOADED"     // 429: over the concurrency limit; Retry-After is set
	CodeInternal            Code = "INTERNAL"              // 500: a defect or an unexpected failure of ours
	CodeSandboxCreateFailed Code = "SANDBOX_CREATE_FAILED" // 500: the driver could not make the sandbox
	CodeSandboxInitFailed   Code = "SANDBOX_INIT_FAILED"   // 500: the agent in the sandbox refused its key
	CodeSigningFailed       Code = "JWT_SIGNING_FAILED"    // 500: the Router could not sign a request to a managed session
	CodeStoreFailed         Code = "STORE_SANDBOX_FAILED"  // 500: the session store failed
	CodeImageNotFound       Code = "IMAGE_NOT_FOUND"       // 500: the template names an image that is not here
	CodeSandboxUnreachable  Code = "SANDBOX_UNREACHABLE"   // 502: the sandbox did not take the connection
	CodeServerNotListening  Code = "SERVER_NOT_LISTENING"  // 502, 504: the template's own server ended, or did not listen in time; no session was made
	CodeUnsupported         Code = "NOT_SUPPORTED"         // 501: what makes sandboxes here cannot do that
	CodeUnavailable         Code = "UNAVAILABLE"           // 503: shutting down, or a dependency is away
	CodeAuditUnavailable    Code = "AUDIT_UNAVAILABLE"     // 503: the audit record cannot be written, and nothing is done unrecorded
	CodeTemplateUnusable    Code = "TEMPLATE_UNUSABLE"     // 422: no sandbox can be made from the template
	CodeSandboxNotAllowed   Code = "SANDBOX_NOT_ALLOWED"   // 503: the machine lets no sandbox be made, now or later
	CodeDiskFull            Code = "DISK_FULL"             // 507: no room on disk for the state of a session
	CodeSandboxTimeout      Code = "SANDBOX_TIMEOUT"       // 504: the sandbox did not become ready in time
)

// Error is the body of every failed answer of the control plane and the
// Router, and the error that handlers return. Its JSON shape is
// {"error": text, "code": CODE, "requestId": id} plus what older clients look
// for: "message" repeats the text, "timestamp" is RFC 3339.
type Error struct {
	// Status is the HTTP status; it is not part of the body.
	Status int `json:"-"`
	// Text says what went wrong in words meant for the caller. It never
	// holds internal causes, paths or secrets.
	Text string `json:"error"`
	Code Code   `json:"code"`
	// Message is Text again, for clients of the older control plane.
	Message string `json:"message"`
	// Hint says what to do next; empty when there is nothing useful to say.
	Hint      string    `json:"hint,omitempty"`
	RequestID string    `json:"requestId,omitempty"`
	Timestamp time.Time `json:"timestamp"`
	// Fate is set on 410 answers: why the session ended.
	Fate string `json:"fate,omitempty"`
	// EndedAt is set on 410 answers.
	EndedAt *time.Time `json:"endedAt,omitempty"`
	// RetryAfter, in seconds, becomes the Retry-After header when not zero.
	RetryAfter int `json:"-"`
	// Cause is the internal reason: it is logged, never sent.
	Cause error `json:"-"`
}

// Errorf makes an Error with a text for the caller.
func Errorf(status int, code Code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Text: fmt.Sprintf(format, args...)}
}

// WithCause returns e with the internal reason set.
func (e *Error) WithCause(err error) *Error { e.Cause = err; return e }

// WithHint returns e with a next step for the caller.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error implements error: text and code, and the cause when there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s (%s): %v", e.Text, e.Code, e.Cause)
	}
	return fmt.Sprintf("%s (%s)", e.Text, e.Code)
}

// Unwrap gives errors.Is and errors.As the internal cause.
func (e *Error) Unwrap() error { return e.Cause }
