package httpserve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// Middleware is what surrounds every handler of a listener.
type Middleware struct {
	// Logger gets one line a request and the causes of errors; nil means slog.Default().
	Logger *slog.Logger
	// Hosts is the check of Host and Origin; see Hosts.
	Hosts Hosts
	// Pace is how slow clients may be; the zero value is httpguard.DefaultPace().
	Pace httpguard.Pace
	// Tracer, when set, records each request but probes as a step of the trace that its header
	// traceparent names, or of a new one. Route then names a request that is over, in
	// words of a bounded number.
	Tracer trace.Tracer
	Route  func(*http.Request) string
	// Observe, when set, is called with each request, and what it returns when that is
	// over. What the handler has noted in the request, such as its Pattern, is there then.
	Observe func(*http.Request) (over func(Served))
}

// Served is what became of a request.
type Served struct {
	Status int
	// Code is of the error that WriteError has answered with; "" when there was none.
	Code     api.Code
	Duration time.Duration
}

type contextKey struct{}

type requestInfo struct {
	id     string
	logger *slog.Logger
	code   api.Code // of the error that was answered
}

// RequestID is the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	if i, ok := ctx.Value(contextKey{}).(*requestInfo); ok {
		return i.id
	}
	return ""
}

func loggerFrom(ctx context.Context) *slog.Logger {
	if i, ok := ctx.Value(contextKey{}).(*requestInfo); ok {
		return i.logger
	}
	return slog.Default()
}

// Wrap puts the middleware around h: request id, access log, panic recovery,
// security headers, the check of Host and Origin, and an end to transfers that do
// not get on. An answer may begin before its request has come in full: from then on
// both may take their time.
func (m Middleware) Wrap(h http.Handler) http.Handler {
	logger := m.Logger
	if logger == nil {
		logger = slog.Default()
	}
	return httpguard.Transfers{Pace: m.Pace, Duplex: true}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		info := &requestInfo{id: requestID(r), logger: logger}
		r, span := m.traced(r.WithContext(context.WithValue(r.Context(), contextKey{}, info)))
		rec := &recorder{ResponseWriter: w}
		rec.Header().Set(api.HeaderRequestID, info.id)
		if id := span.Parent().ID(); id != "" {
			rec.Header().Set(api.HeaderTraceID, id)
		}
		secure(rec.Header())
		over := func(Served) {}
		if m.Observe != nil {
			over = m.Observe(r)
		}
		defer func() {
			served := Served{Status: rec.code(), Code: info.code, Duration: time.Since(start)}
			over(served)
			m.endSpan(span, r, rec, served)
			logger.LogAttrs(r.Context(), accessLevel(r), "request served", append(traceAttr(r.Context()),
				slog.String("requestId", info.id), slog.String("method", r.Method),
				slog.String("path", r.URL.Path), slog.Int("status", served.Status),
				slog.Int64("bytes", rec.written), slog.Duration("duration", served.Duration),
				slog.String("session", rec.Header().Get(api.HeaderSessionID)))...)
		}()
		defer recoverPanic(rec, r)
		if err := m.Hosts.Check(r); err != nil {
			WriteError(rec, r, err)
			return
		}
		h.ServeHTTP(rec, r)
	}))
}

// accessLevel keeps probes, which come every few seconds, out of the usual log.
func accessLevel(r *http.Request) slog.Level {
	if isProbe(r) {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

func isProbe(r *http.Request) bool {
	switch r.URL.Path {
	case "/health", "/health/live", "/health/ready":
		return true
	}
	return false
}

// recoverPanic turns a panic into a 500, or, when the answer has begun, into a
// connection that breaks off, so that no client takes half an answer for a whole.
func recoverPanic(rec *recorder, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	loggerFrom(r.Context()).LogAttrs(r.Context(), slog.LevelError, "handler panicked",
		slog.String("requestId", RequestID(r.Context())),
		slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
	if rec.status != 0 {
		panic(http.ErrAbortHandler)
	}
	WriteError(rec, r, api.Errorf(http.StatusInternalServerError, api.CodeInternal, "internal server error"))
}

func requestID(r *http.Request) string {
	if id := r.Header.Get(api.HeaderRequestID); saneID(id) {
		return id
	}
	return "req-" + rand.Text()
}

// saneID reports whether id is 1 to 128 characters of [A-Za-z0-9._-].
func saneID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// recorder notes status and size of an answer. Unwrap lets
// http.ResponseController reach Flush, Hijack and deadlines.
type recorder struct {
	http.ResponseWriter
	status  int
	written int64
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

func (r *recorder) WriteHeader(status int) {
	// 1xx answers, except the switch of protocols, announce another one.
	if r.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.written += int64(n)
	return n, err
}
