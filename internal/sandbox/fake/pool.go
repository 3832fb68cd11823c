package fake

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// pool is a sandbox.Pool and how often a Create has taken from it. It is full
// again at once.
type pool struct {
	sandbox.Pool
	claims int
}

// Prepare implements sandbox.Warmer: it checks the image, and that is all.
func (d *Driver) Prepare(ctx context.Context, spec sandbox.Spec, progress func(step string)) error {
	err := d.usable(ctx)
	if err == nil {
		err = d.checkImage(spec)
	}
	if err == nil && d.cfg.Hooks.Prepare != nil {
		err = d.cfg.Hooks.Prepare(ctx, spec)
	}
	if err != nil {
		return fmt.Errorf("prepare sandboxes: %w", err)
	}
	if progress != nil {
		progress("checked the image")
	}
	return nil
}

// Warm implements sandbox.Warmer.
func (d *Driver) Warm(pools []sandbox.Pool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.pools
	d.pools = nil
	for _, p := range pools {
		p.Spec = poolSpec(p.Spec)
		made := pool{Pool: p}
		for _, old := range before {
			if reflect.DeepEqual(old.Spec, p.Spec) {
				made.claims = old.claims
			}
		}
		d.pools = append(d.pools, made)
	}
}

// poolSpec is what of a spec decides about the pool.
func poolSpec(spec sandbox.Spec) sandbox.Spec {
	spec.ID, spec.Labels, spec.MinIsolation, spec.Snapshot = "", nil, "", ""
	return spec
}

// claim takes a sandbox from the pool for a spec, if there is one, and says how a
// new one comes about.
func (d *Driver) claim(spec sandbox.Spec) sandbox.Start {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.pools {
		if d.pools[i].Size > 0 && reflect.DeepEqual(d.pools[i].Spec, poolSpec(spec)) {
			d.pools[i].claims++
			return sandbox.StartPool
		}
	}
	return sandbox.StartBoot
}

// PoolSizes implements sandbox.PoolCounter.
func (d *Driver) PoolSizes() []sandbox.PoolSize {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]sandbox.PoolSize, 0, len(d.pools))
	for _, p := range d.pools {
		out = append(out, sandbox.PoolSize{Name: p.Name, Wanted: p.Size, Ready: p.Size})
	}
	return out
}

// Pools returns what Warm was told last.
func (d *Driver) Pools() []sandbox.Pool {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]sandbox.Pool, 0, len(d.pools))
	for _, p := range d.pools {
		out = append(out, p.Pool)
	}
	return slices.Clip(out)
}

// Claims says how many sandboxes were taken from the pool with a name.
func (d *Driver) Claims(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pools {
		if p.Name == name {
			return p.claims
		}
	}
	return 0
}

// Waiting says how many sandboxes wait in all pools together.
func (d *Driver) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.pools {
		n += p.Size
	}
	return n
}
