package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// snapshotBytes is the size that every snapshot claims.
const snapshotBytes = 1 << 20

// snapshot is the state of a sandbox: copies of its handlers that serve nobody.
type snapshot struct {
	info     sandbox.Snapshot
	spec     sandbox.Spec
	handlers map[uint16]http.Handler
}

// awakeLocked counts the sandboxes that are not paused.
func (h *Host) awakeLocked() int {
	n := 0
	for _, b := range h.sandboxes {
		if !b.info.Paused {
			n++
		}
	}
	return n
}

// Snapshots lists the names of the snapshots on the machine, sorted.
func (h *Host) Snapshots() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := make([]string, 0, len(h.snapshots))
	for name := range h.snapshots {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// LoseSnapshot removes a snapshot, as a damaged disk would.
func (h *Host) LoseSnapshot(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.snapshots, name)
}

// Paused reports whether a sandbox is there and paused.
func (h *Host) Paused(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.sandboxes[id]
	return ok && b.info.Paused
}

// inside returns what a new sandbox is made from and what serves in it.
func (d *Driver) inside(spec sandbox.Spec) (sandbox.Spec, map[uint16]http.Handler, error) {
	if spec.Snapshot == "" {
		return spec, d.cfg.Host.serve(spec), nil
	}
	h := d.cfg.Host
	h.mu.Lock()
	from, ok := h.snapshots[spec.Snapshot]
	h.mu.Unlock()
	if !ok {
		return spec, nil, fmt.Errorf("%w: %s", sandbox.ErrNoSnapshot, spec.Snapshot)
	}
	made := from.spec
	made.ID, made.Labels, made.Snapshot = spec.ID, spec.Labels, spec.Snapshot
	made.BootstrapKey, made.MinIsolation = spec.BootstrapKey, spec.MinIsolation
	return made, copyHandlers(from.handlers, h.serve(made), made), nil
}

// copyHandlers copies those handlers that can be, and takes the others from fresh.
func copyHandlers(from, fresh map[uint16]http.Handler, spec sandbox.Spec) map[uint16]http.Handler {
	out := make(map[uint16]http.Handler, len(fresh))
	for port, handler := range fresh {
		out[port] = handler
		if c, ok := from[port].(Copier); ok {
			out[port] = c.Copy(spec)
		}
	}
	return out
}

// enter waits for the turn of the one change of a sandbox at a time. leave gives
// it back.
func (d *Driver) enter(ctx context.Context, id string) (b *box, leave func(), err error) {
	if err := d.usable(ctx); err != nil {
		return nil, nil, err
	}
	h := d.cfg.Host
	h.mu.Lock()
	b, err = h.aliveLocked(id, nil)
	h.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	select {
	case b.turn <- struct{}{}:
		return b, func() { <-b.turn }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// aliveLocked finds a sandbox that has not ended and, when same is given, is
// still that one.
func (h *Host) aliveLocked(id string, same *box) (*box, error) {
	b, ok := h.sandboxes[id]
	switch {
	case !ok, same != nil && b != same:
		return nil, sandbox.ErrNotFound
	case b.info.Exit != nil:
		return nil, sandbox.ErrNotRunning
	}
	return b, nil
}

// Pause implements sandbox.Sleeper.
func (d *Driver) Pause(ctx context.Context, id string) error {
	if err := d.pause(ctx, id); err != nil {
		return fmt.Errorf("pause sandbox %s: %w", id, err)
	}
	return nil
}

func (d *Driver) pause(ctx context.Context, id string) error {
	b, leave, err := d.enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	h := d.cfg.Host
	h.mu.Lock()
	if _, err := h.aliveLocked(id, b); err != nil || b.info.Paused {
		h.mu.Unlock()
		return err
	}
	b.pausing = true
	h.mu.Unlock()
	if d.cfg.Hooks.Pause != nil {
		err = d.cfg.Hooks.Pause(ctx, id)
	}
	if err == nil {
		err = ctx.Err()
	}
	h.mu.Lock()
	b.pausing = false
	if err == nil {
		_, err = h.aliveLocked(id, b)
	}
	running := b.running
	if err == nil {
		b.info.Paused, b.running = true, nil
	}
	h.mu.Unlock()
	if err == nil {
		running.stop()
	}
	return err
}

// Resume implements sandbox.Sleeper.
func (d *Driver) Resume(ctx context.Context, id string) error {
	if err := d.resume(ctx, id); err != nil {
		return fmt.Errorf("resume sandbox %s: %w", id, err)
	}
	return nil
}

func (d *Driver) resume(ctx context.Context, id string) error {
	b, leave, err := d.enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	h := d.cfg.Host
	h.mu.Lock()
	paused := b.info.Paused
	h.mu.Unlock()
	if !paused {
		return nil
	}
	if d.cfg.Hooks.Resume != nil {
		if err := d.cfg.Hooks.Resume(ctx, id); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.aliveLocked(id, b); err != nil {
		return err
	}
	if d.cfg.Capacity > 0 && h.awakeLocked() >= d.cfg.Capacity {
		return sandbox.ErrFull
	}
	b.info.Paused, b.running = false, serve(b.handlers)
	return nil
}

// Checkpoint implements sandbox.Copier.
func (d *Driver) Checkpoint(ctx context.Context, id, name string) (sandbox.Snapshot, error) {
	info, err := d.checkpoint(ctx, id, name)
	if err != nil {
		return sandbox.Snapshot{}, fmt.Errorf("checkpoint sandbox %s: %w", id, err)
	}
	return info, nil
}

func (d *Driver) checkpoint(ctx context.Context, id, name string) (sandbox.Snapshot, error) {
	if !validID(name) {
		return sandbox.Snapshot{}, fmt.Errorf("%w: name of the snapshot", sandbox.ErrInvalidSpec)
	}
	b, leave, err := d.enter(ctx, id)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	defer leave()
	if d.cfg.Hooks.Checkpoint != nil {
		if err := d.cfg.Hooks.Checkpoint(ctx, id, name); err != nil {
			return sandbox.Snapshot{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Snapshot{}, err
	}
	h := d.cfg.Host
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.aliveLocked(id, b); err != nil {
		return sandbox.Snapshot{}, err
	}
	if _, taken := h.snapshots[name]; taken {
		return sandbox.Snapshot{}, fmt.Errorf("%w: snapshot %s", sandbox.ErrExists, name)
	}
	s := &snapshot{spec: b.spec, handlers: map[uint16]http.Handler{}, info: sandbox.Snapshot{
		Name: name, CreatedAt: time.Now().UTC(), SizeBytes: snapshotBytes, Resources: b.spec.Resources,
	}}
	for port, handler := range b.handlers {
		if c, ok := handler.(Copier); ok {
			s.handlers[port] = c.Copy(b.spec)
		}
	}
	h.snapshots[name] = s
	return s.info, nil
}

// Snapshots implements sandbox.Copier.
func (d *Driver) Snapshots(ctx context.Context) ([]sandbox.Snapshot, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	h := d.cfg.Host
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]sandbox.Snapshot, 0, len(h.snapshots))
	for _, s := range h.snapshots {
		out = append(out, s.info)
	}
	slices.SortFunc(out, func(a, b sandbox.Snapshot) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// DeleteSnapshot implements sandbox.Copier.
func (d *Driver) DeleteSnapshot(ctx context.Context, name string) error {
	err := d.usable(ctx)
	if err == nil && d.cfg.Hooks.DeleteSnapshot != nil {
		err = d.cfg.Hooks.DeleteSnapshot(ctx, name)
	}
	if err := errors.Join(err, ctx.Err()); err != nil {
		return fmt.Errorf("delete snapshot %s: %w", name, err)
	}
	d.cfg.Host.LoseSnapshot(name)
	return nil
}
