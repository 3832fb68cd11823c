package httpserve

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// traced begins the step that a request is. From here on the request's header says
// that it is part of that step, to whom it may be passed on; what it said that cannot
// be believed is gone, and so is what it said beside that of a trace that begins here.
func (m Middleware) traced(r *http.Request) (*http.Request, trace.Span) {
	from, tracer := trace.From(r.Header), m.Tracer
	if isProbe(r) {
		tracer = nil
	}
	ctx, span := trace.Serve(r.Context(), tracer, "request", from)
	r = r.WithContext(ctx)
	if tracer != nil || len(r.Header.Values(trace.Header)) > 0 {
		trace.Inject(ctx, r.Header)
	}
	if !from.Valid() {
		r.Header.Del("Tracestate")
	}
	return r, span
}

// endSpan ends the step of a request. Nothing that the client has chosen is noted,
// but ids that are in the log too.
func (m Middleware) endSpan(span trace.Span, r *http.Request, rec *recorder, s Served) {
	if m.Tracer == nil {
		return
	}
	if m.Route != nil {
		span.Rename(m.Route(r))
	}
	span.Note("http.response.status_code", strconv.Itoa(s.Status))
	span.Note("agentcube.request_id", RequestID(r.Context()))
	if id := rec.Header().Get(api.HeaderSessionID); id != "" {
		span.Note("agentcube.session", id)
	}
	failure := ""
	if s.Status >= http.StatusInternalServerError {
		failure = "failed"
	}
	if s.Code != "" {
		span.Note("agentcube.error", string(s.Code))
	}
	span.End(failure)
}

// traceAttr is the id of the trace that a request is part of, if it is.
func traceAttr(ctx context.Context) []slog.Attr {
	if id := trace.Of(ctx).ID(); id != "" {
		return []slog.Attr{slog.String("trace", id)}
	}
	return nil
}
