package httpserve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpguard"
)

// ContentTypeJSON is what AgentCube's clients have always been answered with.
const ContentTypeJSON = "application/json; charset=utf-8"

// ContentPolicy lets a browser do nothing with an answer.
const ContentPolicy = "default-src 'none'; frame-ancestors 'none'"

// secure sets the headers of every answer that is AgentCube's own: it is never
// cached, as it may hold secrets, taken for what it says that it is, and never
// rendered by a browser.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", ContentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
}

// WriteJSON answers with v as JSON, without a trailing newline.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // a type of ours that does not marshal
		status, body = http.StatusInternalServerError, []byte(`{"error":"internal server error","code":"INTERNAL"}`)
	}
	w.Header().Set("Content-Type", ContentTypeJSON)
	secure(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// NotFound answers what no route matches, in the words older clients know.
func NotFound(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, "404 page not found")
}

// ReadJSON decodes the body of r, at most limit bytes of one JSON value, into
// v. Fields that v does not have are ignored. Its errors are answers: 413
// over the limit, 408 when the client sends too slowly, else 400 with the text
// "Invalid request body".
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	err := dec.Decode(v)
	if err == nil {
		if _, extra := dec.Token(); extra != io.EOF {
			err = errors.Join(errors.New("more than one JSON value"), extra)
		}
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok || errors.Is(err, httpguard.ErrStalled) {
		return AsError(err)
	}
	bad := api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, "Invalid request body").WithCause(err)
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
		bad = bad.WithHint("field %q must not be a %s", t.Field, t.Value)
	}
	return bad
}
