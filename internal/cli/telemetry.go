package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/metrics"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/trace"
	"github.com/volcano-sh/agentcube/internal/trace/otlp"
)

const (
	// maxScrapers bounds the connections to the listener of metrics.
	maxScrapers = 64
	// scrapeDrain bounds how long a scrape may go on at shutdown, tracesTimeout the
	// sending of the last traces.
	scrapeDrain   = time.Second
	tracesTimeout = 5 * time.Second
)

// telemetry is what a process tells of itself: metrics, on a listener of their own,
// and traces. Planes are made with configurations that it has been put around.
// Both are counted also when nobody asks.
type telemetry struct {
	metrics *metrics.Metrics
	tracer  trace.Tracer      // nil: no traces
	web     *httpserve.Server // nil: metrics are not served
	ran     bool
}

// openTelemetry takes the address of metrics, its own and those of others, and gets
// ready to send traces, the same as all with the same secret. The caller runs it, and
// calls undo when the planes are closed.
func openTelemetry(
	ctx context.Context, cfg *config.Config, log *slog.Logger, version string, secret []byte, others ...metrics.Gatherer,
) (t *telemetry, undo func() error, err error) {
	t = &telemetry{metrics: metrics.New(version)}
	if cfg.MetricsListen != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", t.metrics.Handler(others...))
		mux.HandleFunc("/", httpserve.NotFound)
		t.web = &httpserve.Server{
			Addr: cfg.MetricsListen, Logger: log, DrainTimeout: scrapeDrain, MaxConnections: maxScrapers,
			Handler: httpserve.Middleware{Logger: slog.New(slog.DiscardHandler), Hosts: httpserve.Hosts{Names: cfg.HostNames()}}.Wrap(mux),
		}
		if err := t.web.Listen(ctx); err != nil {
			return nil, nil, fmt.Errorf("serve metrics: %w", err)
		}
	}
	sending := func() error { return nil }
	if cfg.Tracing {
		tracer := otlp.New(otlp.Config{
			Endpoint: cfg.TracingEndpoint, Ratio: cfg.TracingSampleRatio, Secret: secret, Version: version, Logger: log, Sent: t.metrics.SpansSent,
		})
		if err := tracer.Open(ctx); err != nil {
			return nil, t.unlisten, err
		}
		t.tracer, sending = tracer, func() error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesTimeout)
			defer cancel()
			if err := tracer.Close(ctx); err != nil {
				log.Warn("last traces not sent", "error", err)
			}
			return nil
		}
	}
	return t, func() error { return errors.Join(t.unlisten(), sending()) }, nil
}

// unlisten gives up the address, if it was never served on.
func (t *telemetry) unlisten() error {
	if t.web == nil || t.ran {
		return nil
	}
	return unlisten(t.web)
}

// run serves metrics until ctx ends.
func (t *telemetry) run(ctx context.Context) error {
	if t.web == nil {
		<-ctx.Done()
		return nil
	}
	t.ran = true
	return t.web.Run(ctx)
}

// url is where the metrics are, or "".
func (t *telemetry) url() string {
	if t.web == nil {
		return ""
	}
	return "http://" + t.web.Address().String() + "/metrics"
}

// only is for a listener of one plane.
func only(p metrics.Plane) func(*http.Request) metrics.Plane {
	return func(*http.Request) metrics.Plane { return p }
}

// middleware is m for a listener of which plane says what a request is for.
func (t *telemetry) middleware(m httpserve.Middleware, plane func(*http.Request) metrics.Plane) httpserve.Middleware {
	m.Tracer, m.Route, m.Observe = t.tracer, metrics.Route(plane), t.metrics.Observe(plane)
	return m
}

// manager makes a Workload Manager that is measured. pools say how full they are.
func (t *telemetry) manager(cfg manager.Config, pools sandbox.PoolCounter) *manager.Manager {
	cfg.Driver, cfg.Audit = t.metrics.Driver(cfg.Driver), t.metrics.Recorder(cfg.Audit)
	m := manager.New(cfg)
	t.metrics.Watch(func() metrics.Usage { return metrics.Usage(m.Usage()) }, pools)
	return m
}

// router makes a Router that is measured.
func (t *telemetry) router(cfg router.Config) *router.Router {
	cfg.Dialer = t.metrics.Dialer(cfg.Dialer)
	if cfg.Waker != nil {
		cfg.Waker = t.metrics.Waker(cfg.Waker)
	}
	cfg.Audit, cfg.Rejected = t.metrics.Recorder(cfg.Audit), t.metrics.Rejected
	return router.New(cfg)
}
