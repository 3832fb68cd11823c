package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
)

// sessionMetrics are about what becomes of sessions.
type sessionMetrics struct {
	created, ended  *prometheus.CounterVec
	paused, resumed prometheus.Counter
}

func (m *Metrics) newSessions() sessionMetrics {
	return sessionMetrics{
		created: m.counter("agentcube_sessions_created_total",
			"Sessions that were made, by what they began with.", "origin"),
		ended: m.counter("agentcube_sessions_ended_total", "Sessions that have ended, by their fate.", "fate"),
		paused: m.counter("agentcube_session_pauses_total",
			"Sessions that were put to sleep, by their owner or as they idled.").WithLabelValues(),
		resumed: m.counter("agentcube_session_resumes_total", "Sessions that were woken.").WithLabelValues(),
	}
}

// Recorder counts what is recorded of the planes on its way to r, so that the two
// always agree. It counts also where r is nil, which keeps nothing.
func (m *Metrics) Recorder(r audit.Recorder) audit.Recorder {
	if r == nil {
		r = audit.Nothing{}
	}
	return &recorder{r, m}
}

type recorder struct {
	audit.Recorder
	m *Metrics
}

// Append implements audit.Recorder.
func (r *recorder) Append(e record.Event) {
	s, rt := &r.m.sessions, &r.m.router
	switch e.Action {
	case record.SessionCreated:
		origin := "template"
		if e.Checkpoint != "" {
			origin = "checkpoint"
		}
		s.created.WithLabelValues(origin).Inc()
	case record.SessionForked:
		s.created.WithLabelValues("fork").Inc()
	case record.SessionEnded:
		s.ended.WithLabelValues(e.Fate).Inc()
	case record.SessionPaused:
		s.paused.Inc()
	case record.SessionResumed:
		s.resumed.Inc()
	case record.Request:
		rt.passed("request", e)
	case record.TunnelOpened:
		rt.tunnels.Inc()
	case record.TunnelClosed:
		rt.passed("tunnel", e)
		rt.tunnelDuration.Observe(e.Seconds)
		rt.tunnels.Dec() // last: who sees it gone finds it counted
	}
	r.Recorder.Append(e)
}

func (rt *routerMetrics) passed(via string, e record.Event) {
	if e.Input != nil {
		rt.received.WithLabelValues(via).Add(float64(e.Input.Bytes))
	}
	if e.Output != nil {
		rt.sent.WithLabelValues(via).Add(float64(e.Output.Bytes))
	}
}
