package metrics

import (
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Bounds of what a scraper may ask for.
const (
	maxScrapes    = 4 // at a time
	scrapeTimeout = 10 * time.Second
)

// Metrics are the metrics of one process. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	families []family

	http     httpMetrics
	router   routerMetrics
	sessions sessionMetrics
	sandbox  sandboxMetrics
	store    *prometheus.HistogramVec
	spans    *prometheus.CounterVec
}

// family is one metric as the documentation has it.
type family struct {
	name, kind, help string
	labels           []string
}

// New makes the metrics of a process of this version of AgentCube.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.gauge("agentcube_build_info", "The version that runs; always 1.", "version", "go_version").
		WithLabelValues(version, runtime.Version()).Set(1)
	m.http = m.newHTTP()
	m.router = m.newRouter()
	m.sessions = m.newSessions()
	m.sandbox = m.newSandbox()
	m.store = m.histogram("agentcube_store_operation_duration_seconds",
		"How long the session store took for an operation.", storeBuckets(), "operation", "outcome")
	m.spans = m.counter("agentcube_trace_spans_total", "Spans that were sent to the collector, by whether it took them.", "outcome")
	return m
}

// Gatherer has metrics of somebody else.
type Gatherer = prometheus.Gatherer

// Handler serves the metrics to a scraper, and with them those of others.
func (m *Metrics) Handler(others ...Gatherer) http.Handler {
	all := prometheus.Gatherers{m.registry}
	for _, g := range others {
		all = append(all, foreign{g})
	}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout})
}

// foreign leaves out what is told of the process already.
type foreign struct{ Gatherer }

// Gather implements prometheus.Gatherer.
func (f foreign) Gather() ([]*dto.MetricFamily, error) {
	all, err := f.Gatherer.Gather()
	return slices.DeleteFunc(all, func(m *dto.MetricFamily) bool {
		return strings.HasPrefix(m.GetName(), "go_") || strings.HasPrefix(m.GetName(), "process_")
	}), err
}

// SpansSent is told of spans that were sent, or were not taken; see otlp.Config.
func (m *Metrics) SpansSent(spans int, err error) {
	outcome := "taken"
	if err != nil {
		outcome = "failed"
	}
	m.spans.WithLabelValues(outcome).Add(float64(spans))
}

func (m *Metrics) add(kind, name, help string, labels []string, c prometheus.Collector) {
	m.registry.MustRegister(c)
	m.families = append(m.families, family{name, kind, help, slices.Clone(labels)})
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.add("counter", name, help, labels, v)
	return v
}

func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.add("gauge", name, help, labels, v)
	return v
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.add("histogram", name, help, labels, v)
	return v
}

// Bounds of the buckets, in seconds.

// requestBuckets reach from a request to a warm session to a command of an hour.
func requestBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60, 600, 3600}
}

func sandboxBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120}
}

func storeBuckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 2.5, 10}
}
