package metrics

import (
	"cmp"
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// sandboxMetrics are about what a driver does.
type sandboxMetrics struct {
	created    *prometheus.HistogramVec
	operations *prometheus.HistogramVec
}

func (m *Metrics) newSandbox() sandboxMetrics {
	return sandboxMetrics{
		created: m.histogram("agentcube_sandbox_create_duration_seconds",
			"How long the making of a sandbox took, by how it came about and how that ended.", sandboxBuckets(), "start", "outcome"),
		operations: m.histogram("agentcube_sandbox_operation_duration_seconds",
			"How long the pausing, resuming, copying and removing of sandboxes took.", sandboxBuckets(), "operation", "outcome"),
	}
}

// Driver measures what d is asked for. What d can do is what its Capabilities say.
func (m *Metrics) Driver(d sandbox.Driver) sandbox.Driver {
	measured := &driver{sandbox.Complete(d), m}
	if i, ok := d.(sandbox.Isolator); ok {
		return &isolator{measured, i}
	}
	return measured
}

type driver struct {
	sandbox.Full
	m *Metrics
}

type isolator struct {
	*driver
	sandbox.Isolator
}

// Create implements sandbox.Driver.
func (d *driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	ctx, over := begin(ctx, "sandbox create", trace.Client)
	sb, err := d.Full.Create(ctx, spec)
	how, took := over(outcome(err, sandboxWords()))
	start := cmp.Or(string(sb.Start), "unknown")
	if spec.Snapshot != "" {
		start = "copy"
	}
	d.m.sandbox.created.WithLabelValues(start, how).Observe(took.Seconds())
	return sb, err
}

// Delete implements sandbox.Driver.
func (d *driver) Delete(ctx context.Context, id string) error {
	return d.measure(ctx, "delete", func(ctx context.Context) error { return d.Full.Delete(ctx, id) })
}

// Pause implements sandbox.Driver.
func (d *driver) Pause(ctx context.Context, id string) error {
	return d.measure(ctx, "pause", func(ctx context.Context) error { return d.Full.Pause(ctx, id) })
}

// Resume implements sandbox.Driver.
func (d *driver) Resume(ctx context.Context, id string) error {
	return d.measure(ctx, "resume", func(ctx context.Context) error { return d.Full.Resume(ctx, id) })
}

// Checkpoint implements sandbox.Driver.
func (d *driver) Checkpoint(ctx context.Context, id, snapshot string) (s sandbox.Snapshot, err error) {
	err = d.measure(ctx, "checkpoint", func(ctx context.Context) (err error) {
		s, err = d.Full.Checkpoint(ctx, id, snapshot)
		return err
	})
	return s, err
}

func (d *driver) measure(ctx context.Context, operation string, do func(context.Context) error) error {
	ctx, over := begin(ctx, "sandbox "+operation, trace.Client)
	err := do(ctx)
	how, took := over(outcome(err, sandboxWords()))
	d.m.sandbox.operations.WithLabelValues(operation, how).Observe(took.Seconds())
	return err
}
