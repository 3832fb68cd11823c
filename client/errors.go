package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// Errors to test for with errors.Is.
var (
	// ErrNotFound: no such session, template, checkpoint, token or file (404).
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: no token, a wrong one or one that lacks the scope, or a
	// wrong session key (401, 403).
	ErrUnauthorized = errors.New("unauthorized")
	// ErrSessionEnded: the session is over; APIError.Fate says why (410).
	ErrSessionEnded = errors.New("session has ended")
	// ErrCheckpointUnusable: the checkpoint is damaged, or was made by another
	// version of AgentCube or on another kind of machine (410).
	ErrCheckpointUnusable = errors.New("checkpoint cannot be used")
	// ErrSessionPaused: the session was paused while the request ran; the next
	// one wakes it (409). The command of the request does not go on.
	ErrSessionPaused = errors.New("session was paused")
	// ErrExists: there is a checkpoint, or was a token, of that name (409).
	ErrExists = errors.New("already exists")
	// ErrUnsupported: what makes the sandboxes there cannot do that (501), or the
	// server is too old for it.
	ErrUnsupported = errors.New("not supported")
	// ErrDiskFull: no room on the server's disk, or the sandbox's (507).
	ErrDiskFull = errors.New("disk is full")
	// ErrOverloaded: try again after APIError.RetryAfter (429).
	ErrOverloaded = errors.New("server overloaded")
	// ErrUnreachable: the server could not be reached, or the connection broke.
	ErrUnreachable = errors.New("server not reachable")
)

// APIError is a failed answer of the Workload Manager, the Router or PicoD.
type APIError struct {
	// Status is the HTTP status.
	Status int
	// Code is the stable code; empty when the answer had none.
	Code api.Code
	// Text says what went wrong; Detail, which only PicoD sends, says more.
	Text   string
	Detail string
	// Hint says what to do about it; often empty.
	Hint string
	// RequestID finds the request in the server's log.
	RequestID string
	// Fate is why the session ended, on ErrSessionEnded.
	Fate api.Fate
	// RetryAfter is how long to wait before trying again; 0 when not said.
	RetryAfter time.Duration
}

// Error is the text with the detail, and the code if there is one.
func (e *APIError) Error() string {
	text := e.Text
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Code != "" {
		return fmt.Sprintf("%s (%d %s)", text, e.Status, e.Code)
	}
	return fmt.Sprintf("%s (%d)", text, e.Status)
}

// Is makes errors.Is work with the errors of this package.
func (e *APIError) Is(target error) bool {
	switch e.Status {
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrUnauthorized
	case http.StatusGone:
		return target == ErrSessionEnded && e.Code == api.CodeSessionEnded ||
			target == ErrCheckpointUnusable && e.Code == api.CodeCheckpointUnusable
	case http.StatusTooManyRequests:
		return target == ErrOverloaded
	case http.StatusConflict:
		return target == ErrSessionPaused && e.Code == api.CodeSessionPaused ||
			target == ErrExists && (e.Code == api.CodeCheckpointExists || e.Code == api.CodeTokenExists)
	case http.StatusNotImplemented:
		return target == ErrUnsupported
	case http.StatusInsufficientStorage:
		return target == ErrDiskFull
	}
	return false
}

// ConnectError says that no answer came from the server.
type ConnectError struct {
	// URL is the server's address.
	URL string
	Err error
}

// Error names the server and the cause.
func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.URL, e.Err) }

// Unwrap gives the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrUnreachable) true.
func (e *ConnectError) Is(target error) bool { return target == ErrUnreachable }

// transportError is what became of a request that got no answer.
func transportError(ctx context.Context, base *url.URL, err error) error {
	// The URL error repeats method and full URL; its cause is enough.
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("wait for %s: %w", base.Host, ctx.Err())
	}
	return &ConnectError{URL: base.String(), Err: err}
}

// errorBody is the union of the error bodies that the servers send.
type errorBody struct {
	Error     string          `json:"error"`
	Message   string          `json:"message"`
	Code      json.RawMessage `json:"code"` // a string, or PicoD's integer
	Reason    string          `json:"reason"`
	Detail    string          `json:"detail"`
	Hint      string          `json:"hint"`
	RequestID string          `json:"requestId"`
	Fate      api.Fate        `json:"fate"`
}

func readAPIError(resp *http.Response) *APIError {
	_, e := readError(resp)
	return e
}

// readError reads a failed answer, and returns its body too.
func readError(resp *http.Response) ([]byte, *APIError) {
	e := &APIError{Status: resp.StatusCode, RequestID: resp.Header.Get(api.HeaderRequestID)}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorAnswer))
	var body errorBody
	if err == nil && json.Unmarshal(raw, &body) == nil {
		e.Text, e.Detail, e.Hint, e.Fate = body.Error, body.Detail, body.Hint, body.Fate
		var code string
		if json.Unmarshal(body.Code, &code) == nil {
			e.Code = api.Code(code)
		} else {
			e.Code = api.Code(body.Reason)
		}
		// Older control planes put the code into "error" and the text into "message".
		if body.Message != "" && (e.Text == "" || strings.ToUpper(e.Text) == e.Text) {
			if e.Code == "" {
				e.Code = api.Code(e.Text)
			}
			e.Text = body.Message
		}
		if body.RequestID != "" {
			e.RequestID = body.RequestID
		}
	}
	if e.Text == "" {
		e.Text = "server answered " + strconv.Itoa(resp.StatusCode)
		if text := http.StatusText(resp.StatusCode); text != "" {
			e.Text += " " + text
		}
	}
	return raw, e
}
