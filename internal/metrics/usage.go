package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Usage is what a Workload Manager has in its charge at this moment. Limits are 0
// where there is none.
type Usage struct {
	// Counted: the sessions, and what of them follows, have been counted. Of shared
	// ones they are those of all servers.
	Counted bool
	// Sessions by their state: those that are being made, run, and are paused.
	Pending, Running, Paused int
	// Sandboxes that are not paused, and the most that there may be.
	Sandboxes, MaxSandboxes int
	// MemoryBytes is the sum of their memory limits, and the most that it may be.
	MemoryBytes, MaxMemoryBytes int64
	// Waiting are the starts of sandboxes that wait for their turn.
	Waiting int
}

// Watch asks for usage, and for how full pools are, whenever the metrics are
// scraped. pools may be nil: the driver does not count. Watch is called once.
func (m *Metrics) Watch(usage func() Usage, pools sandbox.PoolCounter) {
	u := &usageCollector{usage: usage, pools: pools}
	u.define(m)
	m.registry.MustRegister(u)
}

// usageCollector makes gauges of what it asks for.
type usageCollector struct {
	usage func() Usage
	pools sandbox.PoolCounter // nil: the driver does not count

	sessions, sandboxes, maxSandboxes, memory, maxMemory, waiting, wanted, ready *prometheus.Desc
}

func (u *usageCollector) define(m *Metrics) {
	for _, d := range []struct {
		to         **prometheus.Desc
		name, help string
		labels     []string
	}{
		{&u.sessions, "agentcube_sessions", "Sessions that have not ended, by state.", []string{"state"}},
		{&u.sandboxes, "agentcube_sandboxes", "Sandboxes that are not paused, from before they are made until they are removed.", nil},
		{&u.maxSandboxes, "agentcube_sandboxes_max", "Most sandboxes at a time that are not paused; 0: no bound.", nil},
		{&u.memory, "agentcube_sandbox_memory_promised_bytes", "Sum of the memory limits of the sandboxes that are not paused.", nil},
		{&u.maxMemory, "agentcube_sandbox_memory_max_bytes", "Most that the sum of memory limits may be; 0: no bound.", nil},
		{&u.waiting, "agentcube_sandbox_starts_waiting", "Sandboxes to be made or resumed that wait for their turn.", nil},
		{&u.wanted, "agentcube_pool_sandboxes_wanted", "Sandboxes that shall wait ready-made, by template.", []string{"template"}},
		{&u.ready, "agentcube_pool_sandboxes_ready", "Sandboxes that wait ready-made, by template.", []string{"template"}},
	} {
		*d.to = prometheus.NewDesc(d.name, d.help, d.labels, nil)
		m.families = append(m.families, family{d.name, "gauge", d.help, d.labels})
	}
}

// Describe implements prometheus.Collector.
func (u *usageCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{u.sessions, u.sandboxes, u.maxSandboxes, u.memory, u.maxMemory, u.waiting, u.wanted, u.ready} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (u *usageCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	now := u.usage()
	if now.Counted {
		gauge(u.sessions, float64(now.Pending), "pending")
		gauge(u.sessions, float64(now.Running), "running")
		gauge(u.sessions, float64(now.Paused), "paused")
		gauge(u.sandboxes, float64(now.Sandboxes))
		gauge(u.memory, float64(now.MemoryBytes))
	}
	gauge(u.maxSandboxes, float64(now.MaxSandboxes))
	gauge(u.maxMemory, float64(now.MaxMemoryBytes))
	gauge(u.waiting, float64(now.Waiting))
	if u.pools == nil {
		return
	}
	// A name that is there twice would fail the whole scrape.
	wanted, ready := map[string]int{}, map[string]int{}
	for _, p := range u.pools.PoolSizes() {
		wanted[p.Name] += p.Wanted
		ready[p.Name] += p.Ready
	}
	for name, n := range wanted {
		gauge(u.wanted, float64(n), name)
		gauge(u.ready, float64(ready[name]), name)
	}
}
