package gvisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Create implements sandbox.Driver. It takes a sandbox from a pool, or restores
// one from a snapshot, or, until there is a snapshot, boots one.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	spec, err := withDefaults(spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if spec.MinIsolation != "" && spec.MinIsolation != Isolation {
		return sandbox.Sandbox{}, fmt.Errorf("%w: isolation %q is not available here, only %q", sandbox.ErrInvalidSpec, spec.MinIsolation, Isolation)
	}
	b, err := d.reserve(spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer d.wg.Done()
	defer close(b.made)
	making, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(b.unwanted, cancel)
	defer stop()
	if err := d.make(making, b, spec); err != nil {
		// What was made must go, also when the caller has given up.
		clean, done := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer done()
		return sandbox.Sandbox{}, errors.Join(err, d.destroy(clean, b))
	}
	s, _ := b.describe()
	s.Start = b.start
	return s, nil
}

// reserve takes the id. The caller must call d.wg.Done.
func (d *Driver) reserve(spec sandbox.Spec) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open || d.closed {
		return nil, sandbox.ErrClosed
	}
	if _, ok := d.boxes[spec.ID]; ok {
		return nil, fmt.Errorf("%w: %s", sandbox.ErrExists, spec.ID)
	}
	b := newBox(record{
		Version: recordVersion, ID: spec.ID, CreatedAt: time.Now().UTC(),
		Labels: spec.Labels, Engine: d.engine,
	}, d.boxDir(spec.ID))
	d.boxes[spec.ID] = b
	d.wg.Add(1)
	return b, nil
}

// make does what Create promises; what it leaves when it fails, the caller removes.
func (d *Driver) make(ctx context.Context, b *box, spec sandbox.Spec) error {
	d.pools.startBegins()
	defer d.pools.startEnds()
	id, err := identity(spec)
	if err != nil {
		return err
	}
	r, start, err := d.obtain(ctx, spec, id)
	if err != nil {
		return err
	}
	b.start = start
	if err := d.serve(b, r); err != nil {
		return errors.Join(err, d.remove(context.WithoutCancel(ctx), r))
	}
	if err := os.MkdirAll(b.dir, 0o711); err != nil {
		return fmt.Errorf("make sandbox directory: %w", err)
	}
	at := r.place()
	if err := b.save(func(rec *record) { rec.Frame, rec.At = r.frame, &at }); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.exit != nil {
		return fmt.Errorf("%w: %s", sandbox.ErrNotRunning, spec.ID)
	}
	b.ready = true
	return nil
}

// identity is what PicoD is told of a new sandbox.
func identity(spec sandbox.Spec) (hostlink.Identity, error) {
	var machine [16]byte
	if _, err := rand.Read(machine[:]); err != nil {
		return hostlink.Identity{}, fmt.Errorf("make machine id: %w", err)
	}
	return hostlink.Identity{
		SandboxID: spec.ID, BootstrapKey: spec.BootstrapKey,
		Hostname: hostname(spec.ID), MachineID: hex.EncodeToString(machine[:]),
	}, nil
}

// obtain gets a run for a new sandbox, with its identity, and says how.
func (d *Driver) obtain(ctx context.Context, spec sandbox.Spec, id hostlink.Identity) (*run, sandbox.Start, error) {
	assume := hostlink.Request{Op: hostlink.OpAssume, Identity: &id}
	if spec.Snapshot != "" {
		s, err := d.openSnapshot(spec.Snapshot)
		if err != nil {
			return nil, "", err
		}
		r, err := d.restore(ctx, s, id.Hostname, assume)
		return r, sandbox.StartSnapshot, err
	}
	f, err := d.frame(ctx, spec)
	if err != nil {
		return nil, "", err
	}
	if !f.agent() {
		r, err := d.boot(ctx, f, id.Hostname)
		return r, sandbox.StartBoot, err
	}
	if r := d.pools.claim(f.key(d.engine)); r != nil {
		d.stock.expect(f) // to wake or to fork it later
		if err := r.link.ask(ctx, assume); err == nil {
			return r, sandbox.StartPool, nil
		}
		d.discard(r)
	}
	if s := d.templates.ready(f); s != nil {
		r, err := d.restore(ctx, s, id.Hostname, assume)
		if err == nil || ctx.Err() != nil {
			return r, sandbox.StartSnapshot, err
		}
		d.cfg.Logger.Warn("sandbox not restored from its template's snapshot, booting it", "image", f.Image, "error", err)
		// The snapshot may be well, and the machine short of something.
		if _, err := d.usableSnapshot(s.dir); err != nil {
			d.templates.drop(f)
		}
	}
	r, err := d.boot(ctx, f, id.Hostname, assume)
	return r, sandbox.StartBoot, err
}

// boot makes a run that begins at the beginning. With PicoD inside, it does
// what is asked first.
func (d *Driver) boot(ctx context.Context, f frame, host string, first ...hostlink.Request) (*run, error) {
	b, err := d.blankRun(ctx, f, host)
	if err != nil {
		return nil, err
	}
	return d.begin(ctx, b, (*run).boot, host, first)
}

// restore makes a run that begins with a snapshot.
func (d *Driver) restore(ctx context.Context, s *snapshot, host string, first ...hostlink.Request) (*run, error) {
	b, err := d.blankRun(ctx, s.meta.Frame, host)
	if err != nil {
		return nil, err
	}
	return d.begin(ctx, b, func(r *run) error { return r.restore(s.dir) }, host, first)
}

// begin has a blank run become something. When it fails the run is removed.
func (d *Driver) begin(ctx context.Context, b *blank, how func(*run) error, host string, first []hostlink.Request) (*run, error) {
	r, f := b.run, b.frame
	err := how(r)
	if err != nil {
		err = errors.Join(err, b.ours.Close())
	} else if f.agent() {
		err = d.connect(ctx, r, b.ours, host, first)
	}
	if err == nil {
		err = d.groups.limitCPU(r.id, f.Resources, true)
	}
	if err != nil {
		if _, detail := d.why(r.id, "", ""); detail != "" {
			err = fmt.Errorf("%w (%s)", err, detail)
		}
		clean, done := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer done()
		return nil, errors.Join(err, d.remove(clean, r))
	}
	return r, nil
}

// connectTimeout bounds the wait for PicoD in a sandbox that runs. It answers
// within milliseconds, or on a machine that has no time at all, seconds.
const connectTimeout = 30 * time.Second

// connect waits for PicoD; it gives up when the sandbox ends.
func (d *Driver) connect(ctx context.Context, r *run, ours hostlink.Files, host string, first []hostlink.Request) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	d.wg.Go(func() {
		select {
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		}
	})
	return r.link.connect(ctx, ours, host, first...)
}

// discard removes a run that nobody knows of, in the background; should that
// fail, the next Open does it.
func (d *Driver) discard(r *run) {
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
		defer cancel()
		if err := d.remove(ctx, r); err != nil {
			d.cfg.Logger.Error("sandbox not removed", "run", r.id, "error", err)
		}
	})
}
