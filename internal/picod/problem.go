package picod

import (
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/volcano-sh/agentcube/internal/picod/jail"
	"github.com/volcano-sh/agentcube/internal/picod/token"
)

// problem is an error as a client sees it.
type problem struct {
	status     int
	text       string
	detail     string
	reason     string // stable
	file       *int   // of the files of an init request, the one that is the cause
	withoutNum bool   // the original answer had no "code"
}

func fault(status int, reason, text string) *problem {
	return &problem{status: status, reason: reason, text: text}
}

// fail answers with a problem.
func (q *request) fail(p *problem) {
	q.note.code(p.reason)
	body := struct {
		Error     string `json:"error"`
		Code      int    `json:"code,omitempty"`
		Detail    string `json:"detail,omitempty"`
		Reason    string `json:"reason"`
		File      *int   `json:"file,omitempty"`
		RequestID string `json:"requestId"`
	}{p.text, p.status, p.detail, p.reason, p.file, q.id}
	if p.withoutNum {
		body.Code = 0
	}
	if p.status == http.StatusTooManyRequests {
		q.w.Header().Set("Retry-After", "1")
	}
	if p.status >= 500 {
		q.log.Error("request failed", "requestId", q.id, "trace", q.parent.ID(), "status", p.status, "reason", p.reason)
	}
	q.reply(p.status, true, body)
}

// gzipPool keeps a few compressors; each is several hundred kilobytes.
type gzipPool chan *gzip.Writer

// gzipFrom is the size in bytes from which an answer is worth compressing.
const gzipFrom = 1024

// reply answers with JSON. Errors are always compressed when the client can
// take it, because clients test for that; other answers when it pays.
func (q *request) reply(status int, isError bool, body any) {
	text, err := json.Marshal(body)
	if err != nil { // every body is made of texts and numbers
		panic(fmt.Errorf("encode answer: %w", err))
	}
	q.note.answer(text)
	h := q.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if q.r.URL.Path != "/health" && (isError || len(text) >= gzipFrom) {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(q.r.Header.Get("Accept-Encoding")) {
			q.replyGzip(status, text)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	q.w.WriteHeader(status)
	_, _ = q.w.Write(text) // a client that is gone cannot be told
}

func (q *request) replyGzip(status int, text []byte) {
	var z *gzip.Writer
	select {
	case z = <-q.writers:
		z.Reset(q.w)
	default:
		z, _ = gzip.NewWriterLevel(q.w, gzip.BestSpeed) // the level is valid
	}
	q.w.Header().Set("Content-Encoding", "gzip")
	q.w.WriteHeader(status)
	_, _ = z.Write(text)
	_ = z.Close()
	select {
	case q.writers <- z:
	default:
	}
}

// acceptsGzip reads an Accept-Encoding header.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) != "gzip" {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !found || err == nil && weight > 0
	}
	return false
}

// requestID takes a client's id when it is harmless in logs and answers.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	sane := len(id) > 0 && len(id) <= 128
	for _, c := range []byte(id) {
		sane = sane && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("-_.:", c) >= 0)
	}
	if sane {
		return id
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

func (q *request) tooLarge() *problem {
	return &problem{
		status: http.StatusRequestEntityTooLarge, text: "request body too large", reason: "BODY_TOO_LARGE",
		detail: fmt.Sprintf("maximum allowed size is %d bytes", q.limit()), withoutNum: true,
	}
}

// refused maps errors of package token.
func refused(err error) *problem {
	const status = http.StatusUnauthorized
	switch {
	case errors.Is(err, token.ErrNotInitialized):
		return &problem{status: http.StatusForbidden, text: "Server not initialized", reason: "NOT_INITIALIZED",
			detail: "Initialize the server with POST /init first"}
	case errors.Is(err, token.ErrAlreadyInitialized):
		return &problem{status: http.StatusForbidden, text: "Server already initialized", reason: "ALREADY_INITIALIZED",
			detail: "The session key is fixed for the life of this server"}
	case errors.Is(err, token.ErrMissingHeader):
		return &problem{status: status, text: "Missing Authorization header", reason: "MISSING_TOKEN",
			detail: "Send Authorization: Bearer <token>"}
	case errors.Is(err, token.ErrMalformedHeader):
		return &problem{status: status, text: "Invalid Authorization header format", reason: "MALFORMED_TOKEN",
			detail: "Send Authorization: Bearer <token>"}
	case errors.Is(err, token.ErrInvalidToken):
		return &problem{status: status, text: "Invalid token", reason: "INVALID_TOKEN", detail: token.Detail(err)}
	case errors.Is(err, token.ErrTooManyTokens):
		return fault(http.StatusTooManyRequests, "TOO_MANY_TOKENS", "too many live tokens, try again later")
	case errors.Is(err, token.ErrMissingKey):
		return fault(http.StatusBadRequest, "MISSING_SESSION_KEY", "Missing session_public_key in token")
	case errors.Is(err, token.ErrBadKey):
		return fault(http.StatusInternalServerError, "BAD_SESSION_KEY", "Failed to save public key: "+err.Error())
	}
	return fault(http.StatusInternalServerError, "INTERNAL", "Failed to save public key: the session could not be stored")
}

// badPath maps errors of package jail. what names the thing asked for.
func badPath(err error, what string) *problem {
	switch {
	case errors.Is(err, jail.ErrEscapes):
		return fault(http.StatusBadRequest, "PATH_ESCAPES_WORKSPACE", "Invalid path: path escapes workspace jail")
	case errors.Is(err, jail.ErrInvalid), errors.Is(err, jail.ErrLoop):
		return fault(http.StatusBadRequest, "INVALID_PATH", "Invalid path: "+err.Error())
	case errors.Is(err, jail.ErrNotDir):
		return fault(http.StatusBadRequest, "NOT_A_DIRECTORY", "Path is not a directory")
	case errors.Is(err, jail.ErrNotRegular):
		return fault(http.StatusBadRequest, "NOT_A_REGULAR_FILE", "Path is not a regular file")
	case errors.Is(err, jail.ErrDiskFull):
		return fault(http.StatusInsufficientStorage, "DISK_FULL", "No space left in the workspace; nothing was written")
	case errors.Is(err, fs.ErrNotExist):
		return fault(http.StatusNotFound, strings.ToUpper(what)+"_NOT_FOUND", what+" not found")
	case errors.Is(err, fs.ErrPermission):
		return fault(http.StatusForbidden, "PERMISSION_DENIED", "Permission denied")
	}
	return fault(http.StatusInternalServerError, "INTERNAL", "Failed to access "+strings.ToLower(what))
}
