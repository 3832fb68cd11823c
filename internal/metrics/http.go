package metrics

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// Plane is which part of AgentCube a request is for.
type Plane string

// The planes.
const (
	Manager Plane = "manager"
	Router  Plane = "router"
)

// httpMetrics are about requests as the listener sees them.
type httpMetrics struct {
	errors          *prometheus.CounterVec
	managerRequests *prometheus.CounterVec
	managerDuration *prometheus.HistogramVec
	routerRequests  *prometheus.CounterVec
	routerDuration  *prometheus.HistogramVec
	inFlight        map[Plane]prometheus.Gauge
}

func (m *Metrics) newHTTP() httpMetrics {
	return httpMetrics{
		errors: m.counter("agentcube_request_errors_total",
			"Errors that AgentCube itself has answered requests with, by their stable code.", "plane", "code"),
		managerRequests: m.counter("agentcube_manager_requests_total",
			"Requests to the Workload Manager that are over.", "route", "code"),
		managerDuration: m.histogram("agentcube_manager_request_duration_seconds",
			"How long requests to the Workload Manager took.", requestBuckets(), "route"),
		routerRequests: m.counter("agentcube_router_requests_total",
			"Requests to the Router that are over.", "kind", "method", "code"),
		routerDuration: m.histogram("agentcube_router_request_duration_seconds",
			"How long requests to the Router took, what runs in the sandbox included.", requestBuckets(), "kind", "method"),
		inFlight: map[Plane]prometheus.Gauge{
			Manager: m.gauge("agentcube_manager_requests_in_flight", "Requests to the Workload Manager under way.").WithLabelValues(),
			Router:  m.gauge("agentcube_router_requests_in_flight", "Requests to the Router under way.").WithLabelValues(),
		},
	}
}

// Observe is for httpserve.Middleware, on a listener of which plane says what a
// request is for.
func (m *Metrics) Observe(plane func(*http.Request) Plane) func(*http.Request) func(httpserve.Served) {
	return func(r *http.Request) func(httpserve.Served) {
		p := plane(r)
		m.http.inFlight[p].Inc()
		return func(s httpserve.Served) {
			m.served(p, r, s)
			m.http.inFlight[p].Dec() // last: who sees it gone finds it counted
		}
	}
}

func (m *Metrics) served(p Plane, r *http.Request, s httpserve.Served) {
	class := strconv.Itoa(s.Status/100) + "xx"
	if p == Router {
		kind, method := kindOf(r.URL.Path), methodOf(r.Method)
		m.http.routerRequests.WithLabelValues(kind, method, class).Inc()
		m.http.routerDuration.WithLabelValues(kind, method).Observe(s.Duration.Seconds())
	} else {
		route := routeOf(r)
		m.http.managerRequests.WithLabelValues(route, class).Inc()
		m.http.managerDuration.WithLabelValues(route).Observe(s.Duration.Seconds())
	}
	if s.Code != "" {
		m.http.errors.WithLabelValues(string(p), string(s.Code)).Inc()
	}
}

// Route names a request that is over in words of a bounded number, for its span.
func Route(plane func(*http.Request) Plane) func(*http.Request) string {
	return func(r *http.Request) string {
		if plane(r) == Router {
			return "router " + methodOf(r.Method) + " " + kindOf(r.URL.Path)
		}
		return "manager " + routeOf(r)
	}
}

// routeOf is the pattern that the Workload Manager's table has for a request; a
// ServeMux has noted it.
func routeOf(r *http.Request) string {
	if r.Pattern == "" || r.Pattern == "/" {
		return "other"
	}
	return r.Pattern
}

// kindOf is what a request to the Router is to.
func kindOf(path string) string {
	if strings.HasPrefix(path, "/health/") {
		return "health"
	}
	segments := strings.SplitN(strings.TrimPrefix(path, "/v1/namespaces/"), "/", 3)
	if len(segments) == 3 {
		switch segments[1] {
		case "code-interpreters":
			return "code-interpreter"
		case "agent-runtimes":
			return "agent-runtime"
		}
	}
	return "other"
}

func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodPost:
		return method
	}
	return "other"
}
