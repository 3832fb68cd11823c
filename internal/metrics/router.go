package metrics

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// routerMetrics are about what only the Router sees.
type routerMetrics struct {
	received, sent *prometheus.CounterVec
	tunnels        prometheus.Gauge
	tunnelDuration prometheus.Observer
	rejected       *prometheus.CounterVec
	dials          *prometheus.HistogramVec
	wakes          *prometheus.HistogramVec
}

func (m *Metrics) newRouter() routerMetrics {
	return routerMetrics{
		received: m.counter("agentcube_router_received_bytes_total",
			"Bytes of bodies, or of encrypted connections that are over, from clients to sandboxes.", "via"),
		sent: m.counter("agentcube_router_sent_bytes_total",
			"Bytes of bodies, or of encrypted connections that are over, from sandboxes to clients.", "via"),
		tunnels: m.gauge("agentcube_router_tunnels", "Encrypted connections that are being carried.").WithLabelValues(),
		tunnelDuration: m.histogram("agentcube_router_tunnel_duration_seconds",
			"How long encrypted connections lasted.", requestBuckets()).WithLabelValues(),
		rejected: m.counter("agentcube_router_rejected_total",
			"Requests and encrypted connections that were refused, by the limit that they met.", "limit"),
		dials: m.histogram("agentcube_router_dial_duration_seconds",
			"How long the Router took to connect to a port of a sandbox.", sandboxBuckets(), "outcome"),
		wakes: m.histogram("agentcube_router_wake_duration_seconds",
			"How long requests waited for their paused session to run.", sandboxBuckets(), "outcome"),
	}
}

// Rejected is told of what met a limit of the Router's; see router.Config.
func (m *Metrics) Rejected(limit string) { m.router.rejected.WithLabelValues(limit).Inc() }

// Dialer reaches a port inside the sandbox of a session; see router.Dialer.
type Dialer interface {
	Dial(ctx context.Context, rec session.Session, port uint16) (net.Conn, error)
}

// Dialer measures what the Router connects to.
func (m *Metrics) Dialer(d Dialer) Dialer { return &dialer{d, m} }

type dialer struct {
	Dialer
	m *Metrics
}

// Dial implements Dialer.
func (d *dialer) Dial(ctx context.Context, rec session.Session, port uint16) (conn net.Conn, err error) {
	ctx, over := begin(ctx, "sandbox dial", trace.Client)
	conn, err = d.Dialer.Dial(ctx, rec, port)
	how, took := over(outcome(err, sandboxWords()))
	d.m.router.dials.WithLabelValues(how).Observe(took.Seconds())
	return conn, err
}

// Waker resumes paused sessions; see router.Waker.
type Waker interface {
	Wake(ctx context.Context, id string) error
}

// Waker measures what the Router waits for.
func (m *Metrics) Waker(w Waker) Waker { return &waker{w, m} }

type waker struct {
	Waker
	m *Metrics
}

// Wake implements Waker.
func (w *waker) Wake(ctx context.Context, id string) error {
	ctx, over := begin(ctx, "session wake", trace.Client)
	err := w.Waker.Wake(ctx, id)
	how := outcome(err, sandboxWords())
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeServerOverloaded {
		how = "full"
	}
	how, took := over(how)
	w.m.router.wakes.WithLabelValues(how).Observe(took.Seconds())
	return err
}

// begin begins a step, which over ends.
func begin(ctx context.Context, name string, kind trace.Kind) (_ context.Context, over func(outcome string) (string, time.Duration)) {
	start := time.Now()
	ctx, span := trace.Start(ctx, name, kind)
	return ctx, func(outcome string) (string, time.Duration) {
		span.End(failure(outcome))
		return outcome, time.Since(start)
	}
}
