package otlp

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"

	"github.com/volcano-sh/agentcube/internal/trace"
)

// What is kept for the collector, at most: spans that wait, what is noted of each,
// and for how long one batch may be on its way.
const (
	maxWaiting = 2048
	maxNotes   = 16
	maxNote    = 128
	maxSending = 10 * time.Second
)

// Config of a Tracer.
type Config struct {
	// Endpoint is the URL of the collector, to which /v1/traces is added.
	Endpoint string
	// Ratio is which part of the traces is recorded, from 0 to 1.
	Ratio float64
	// Secret decides which: processes that have the same record the same traces, and
	// who does not know it cannot choose an id that is recorded. Empty: one of its own.
	Secret []byte
	// Version of this program.
	Version string
	// Logger; nil means slog.Default().
	Logger *slog.Logger
	// Sent, when set, is called with the number of spans of each batch, and why the
	// collector did not take it.
	Sent func(spans int, err error)
}

// Tracer is a trace.Tracer. Open comes first.
type Tracer struct {
	cfg      Config
	provider *sdk.TracerProvider
	tracer   otel.Tracer
}

// New makes a Tracer. It does no I/O.
func New(cfg Config) *Tracer {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Sent == nil {
		cfg.Sent = func(int, error) {}
	}
	if len(cfg.Secret) == 0 {
		cfg.Secret = []byte(rand.Text())
	}
	return &Tracer{cfg: cfg}
}

// Open gets ready to send; whether the collector is there it does not ask.
func (t *Tracer) Open(ctx context.Context) error {
	at, err := url.Parse(t.cfg.Endpoint)
	if err != nil {
		return fmt.Errorf("open tracer: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(at.JoinPath("v1/traces").String()), otlptracehttp.WithTimeout(maxSending))
	if err != nil {
		return fmt.Errorf("open tracer: %w", err)
	}
	limits := sdk.NewSpanLimits()
	limits.AttributeCountLimit, limits.AttributeValueLengthLimit = maxNotes, maxNote
	t.provider = sdk.NewTracerProvider(
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "agentcube"), attribute.String("service.version", t.cfg.Version),
			attribute.String("service.instance.id", rand.Text()))),
		sdk.WithSampler(newSampler(t.cfg.Ratio, t.cfg.Secret)),
		sdk.WithRawSpanLimits(limits),
		sdk.WithBatcher(&exporting{SpanExporter: exporter, cfg: t.cfg},
			sdk.WithMaxQueueSize(maxWaiting), sdk.WithExportTimeout(2*maxSending)),
	)
	t.tracer = t.provider.Tracer("agentcube")
	return nil
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("close tracer: %w", err)
	}
	return nil
}

// Begin implements trace.Tracer.
func (t *Tracer) Begin(name string, kind trace.Kind, parent trace.Parent, remote bool) trace.Span {
	ctx := context.Background()
	if parent.Valid() {
		var flags otel.TraceFlags
		ctx = otel.ContextWithSpanContext(ctx, otel.NewSpanContext(otel.SpanContextConfig{
			TraceID: parent.Trace, SpanID: parent.Span, TraceFlags: flags.WithSampled(parent.Sampled), Remote: remote,
		}))
	}
	of := otel.SpanKindInternal
	switch kind {
	case trace.Server:
		of = otel.SpanKindServer
	case trace.Client:
		of = otel.SpanKindClient
	}
	_, s := t.tracer.Start(ctx, name, otel.WithSpanKind(of))
	return span{s}
}

type span struct{ otel.Span }

// Parent implements trace.Span.
func (s span) Parent() trace.Parent {
	c := s.SpanContext()
	return trace.Parent{Trace: c.TraceID(), Span: c.SpanID(), Sampled: c.IsSampled()}
}

// Rename implements trace.Span.
func (s span) Rename(name string) { s.SetName(name) }

// Note implements trace.Span.
func (s span) Note(key, value string) { s.SetAttributes(attribute.String(key, value)) }

// End implements trace.Span.
func (s span) End(failure string) {
	if failure != "" {
		s.SetStatus(codes.Error, failure)
	}
	s.Span.End()
}

// exporting tells of what an exporter does. Errors end here: OpenTelemetry would
// print them on the standard error output.
type exporting struct {
	sdk.SpanExporter
	cfg    Config
	failed atomic.Bool
}

// ExportSpans implements sdk.SpanExporter.
func (e *exporting) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.cfg.Sent(len(spans), err)
	if before := e.failed.Swap(err != nil); before != (err != nil) {
		if err != nil {
			e.cfg.Logger.Warn("traces are not taken by the collector", "endpoint", e.cfg.Endpoint, "error", err)
		} else {
			e.cfg.Logger.Info("traces are taken by the collector again")
		}
	}
	return nil
}
