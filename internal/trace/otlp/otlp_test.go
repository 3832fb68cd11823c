package otlp_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/trace"
	"github.com/volcano-sh/agentcube/internal/trace/otlp"
	"github.com/volcano-sh/agentcube/internal/trace/otlp/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opened is a tracer that is closed, and has sent everything, when done is called.
func opened(t *testing.T, cfg otlp.Config) (tracer *otlp.Tracer, done func()) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	tracer = otlp.New(cfg)
	if err := tracer.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tracer, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := tracer.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

// random is the step of a client that records it.
func random() trace.Parent {
	p := trace.Parent{Sampled: true}
	for i := range p.Trace {
		p.Trace[i] = byte(rand.Uint32())
	}
	p.Span[0] = 1
	return p
}

// TestSteps: steps arrive at a collector as what they are, and what a step is part of
// decides the trace.
func TestSteps(t *testing.T) {
	to := otlptest.New(t)
	sent := 0
	tracer, done := opened(t, otlp.Config{Endpoint: to.URL, Ratio: 1, Version: "1.2.3", Sent: func(n int, err error) {
		if err == nil {
			sent += n
		}
	}})
	client := random()
	ctx, outer := trace.Serve(t.Context(), tracer, "request", client)
	later := trace.Carry(context.Background(), ctx)
	_, inner := trace.Start(later, "sandbox create", trace.Client)
	inner.Note("long", strings.Repeat("x", 10000))
	inner.End("timeout")
	outer.Rename("manager POST /v1/code-interpreter")
	outer.End("")
	done()
	spans := map[string]otlptest.Span{}
	for _, s := range to.Spans() {
		spans[s.Name] = s
	}
	first, second := spans["manager POST /v1/code-interpreter"], spans["sandbox create"]
	if len(spans) != 2 || sent != 2 || first.Kind != "SPAN_KIND_SERVER" || second.Kind != "SPAN_KIND_CLIENT" {
		t.Fatalf("%d sent, arrived are %+v", sent, spans)
	}
	if first.Trace != client.ID() || second.Trace != client.ID() || first.Parent != "0100000000000000" || second.Parent != first.ID {
		t.Errorf("the trace of %s is %+v", client, spans)
	}
	if first.Failure != "" || second.Failure != "timeout" || len(second.Notes["long"]) != 128 {
		t.Errorf("ended are %+v", spans)
	}
}

// TestSampling: of the traces of clients, who all say that theirs is recorded, the part
// is that the operator wants; one is recorded whole or not at all, by all processes
// with the same secret; and a client can have its own left out.
func TestSampling(t *testing.T) {
	const traces, ratio = 4000, 0.25
	to := otlptest.New(t)
	ids := make([]trace.Parent, traces)
	var kept [3]map[string]bool
	for i := range ids {
		ids[i] = random()
	}
	for i, secret := range []string{"one", "one", "two"} {
		tracer, done := opened(t, otlp.Config{Endpoint: to.URL, Ratio: ratio, Secret: []byte(secret)})
		kept[i] = map[string]bool{}
		for _, id := range ids {
			ctx, span := trace.Serve(t.Context(), tracer, "request", id)
			_, inner := trace.Start(ctx, "step", trace.Inside)
			if span.Parent().Sampled != inner.Parent().Sampled {
				t.Fatal("a trace is recorded in part")
			}
			if id.Sampled = false; span.Parent().Sampled {
				kept[i][id.ID()] = true
			}
			_, left := trace.Serve(t.Context(), tracer, "request", id)
			if left.Parent().Sampled {
				t.Fatal("a trace is recorded that its client does not record")
			}
		}
		done()
		if n := float64(len(kept[i])) / traces; n < ratio-.05 || n > ratio+.05 {
			t.Errorf("%v of the traces are recorded, want %v", n, ratio)
		}
	}
	common := 0
	for id := range kept[0] {
		if !kept[1][id] {
			t.Fatal("two processes with the same secret record different traces")
		}
		if kept[2][id] {
			common++
		}
	}
	if common > traces/8 {
		t.Errorf("%d of %d traces are recorded with another secret too: ids tell which are", common, len(kept[0]))
	}
	for ratio, want := range map[float64]bool{0: false, 1: true} {
		tracer, done := opened(t, otlp.Config{Endpoint: to.URL, Ratio: ratio})
		for range 100 {
			if _, span := trace.Serve(t.Context(), tracer, "request", trace.Parent{}); span.Parent().Sampled != want || !span.Parent().Valid() {
				t.Errorf("with %v: %+v", ratio, span.Parent())
			}
		}
		done()
	}
}

// TestCollectorAway: a collector that does not take traces keeps nobody waiting, and
// is told of.
func TestCollectorAway(t *testing.T) {
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer away.Close()
	var failed error
	lost := 0
	tracer, done := opened(t, otlp.Config{Endpoint: away.URL, Ratio: 1, Sent: func(n int, err error) {
		lost, failed = lost+n, errors.Join(failed, err)
	}})
	for range 3 {
		_, span := trace.Serve(t.Context(), tracer, "request", trace.Parent{})
		span.End("")
	}
	done()
	if lost != 3 || failed == nil {
		t.Errorf("%d spans were not taken: %v", lost, failed)
	}
}
