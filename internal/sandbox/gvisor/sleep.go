package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Pause implements sandbox.Sleeper. The sandbox goes on for the moment between
// the saving of its state and its end, so that a failure, and the end of this
// process, leave it running; nobody can reach it then.
func (d *Driver) Pause(ctx context.Context, id string) error {
	b, err := d.find(id)
	if err != nil {
		return err
	}
	done, err := b.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer done()
	r, err := b.running()
	if errors.Is(err, sandbox.ErrPaused) {
		return nil
	}
	if err != nil {
		return err
	}
	b.setLeaving(true)
	defer b.setLeaving(false)
	d.stock.expect(r.frame) // to wake it
	s, err := d.capture(ctx, r, b.pausedDir(), hostlink.Request{Op: hostlink.OpPrepare})
	if err != nil {
		return fmt.Errorf("pause sandbox %s: %w", id, err)
	}
	// While the process ends there is time for the sums.
	summed := make(chan error, 1)
	go func() { summed <- d.sums.add(s) }()
	defer func() {
		if err := <-summed; err != nil {
			d.cfg.Logger.Error("sums of a paused sandbox not written", "sandbox", id, "error", err)
		}
	}()
	if err := b.save(func(rec *record) { rec.At = nil }); err != nil {
		return fmt.Errorf("pause sandbox %s: %w", id, diskError("write record", err))
	}
	d.leave(b)
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer stop()
	if err := d.remove(clean, r); err != nil {
		// It is paused all the same; the next Open removes what is left.
		d.cfg.Logger.Error("paused sandbox's process not removed", "sandbox", id, "error", err)
	}
	return nil
}

func (b *box) setLeaving(leaving bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaving = leaving
}

// capture makes a snapshot of a run, which has been asked to prepare and goes on.
func (d *Driver) capture(ctx context.Context, r *run, dir string, prepare hostlink.Request) (*snapshot, error) {
	if r.frame.agent() {
		if err := r.link.ask(ctx, prepare); err != nil {
			return nil, err
		}
	}
	if err := d.groups.limitCPU(r.id, r.frame.Resources, false); err != nil {
		return nil, err
	}
	s, err := d.writeSnapshot(r, dir, prepare.Complete)
	if limitErr := d.groups.limitCPU(r.id, r.frame.Resources, true); limitErr != nil {
		select {
		case <-r.gone: // and its group with it
		default:
			err = errors.Join(err, limitErr)
		}
	}
	if r.frame.agent() {
		// A sandbox that has ended meanwhile has nothing to go on with.
		if goOn := r.link.ask(ctx, hostlink.Request{Op: hostlink.OpContinue}); goOn != nil && err == nil {
			d.cfg.Logger.Warn("sandbox not told that its snapshot was taken", "run", r.id, "error", goOn)
		}
	}
	return s, err
}

// Resume implements sandbox.Sleeper.
func (d *Driver) Resume(ctx context.Context, id string) error {
	b, err := d.find(id)
	if err != nil {
		return err
	}
	done, err := b.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, err := b.running(); !errors.Is(err, sandbox.ErrPaused) {
		return err
	}
	d.pools.startBegins()
	defer d.pools.startEnds()
	s, err := d.loadSnapshot(b.pausedDir())
	if err == nil {
		err = d.wake(ctx, b, s)
	}
	if errors.Is(err, errDamaged) || errors.Is(err, errForeign) {
		d.wg.Go(func() { d.ended(b, sandbox.ExitLost, "its paused state cannot be used: "+err.Error()) })
		return fmt.Errorf("resume sandbox %s: %w: %w", id, sandbox.ErrNotRunning, err)
	}
	if err != nil {
		return fmt.Errorf("resume sandbox %s: %w", id, err)
	}
	if err := d.removeLater(b.pausedDir(), b.dir); err != nil {
		d.cfg.Logger.Error("state of a resumed sandbox not removed", "sandbox", id, "error", err)
	}
	return nil
}

// wake restores a paused sandbox from its state, which is checked while the
// process for it starts.
func (d *Driver) wake(ctx context.Context, b *box, s *snapshot) error {
	checked := make(chan error, 1)
	go func() { checked <- d.sums.check(s) }()
	host := hostname(b.id())
	made, err := d.blankRun(ctx, s.meta.Frame, host)
	if err != nil {
		return err
	}
	r, err := d.begin(ctx, made, func(r *run) error {
		if err := <-checked; err != nil {
			return err
		}
		return r.restore(s.dir)
	}, host, nil)
	if err != nil {
		return err
	}
	at := r.place()
	if err = b.save(func(rec *record) { rec.At = &at }); err == nil {
		err = d.serve(b, r)
	}
	if err != nil {
		d.discard(r)
		return errors.Join(err, b.save(func(rec *record) { rec.At = nil }))
	}
	return nil
}

func (d *Driver) snapshotDir(name string) string { return filepath.Join(d.snaps, name) }

// Checkpoint implements sandbox.Copier.
func (d *Driver) Checkpoint(ctx context.Context, id, name string) (sandbox.Snapshot, error) {
	if !validID(name) {
		return sandbox.Snapshot{}, fmt.Errorf("%w: snapshot %q: want 1 to 63 characters of [a-z0-9-]", sandbox.ErrInvalidSpec, name)
	}
	b, err := d.find(id)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	done, err := b.takeTurn(ctx)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	defer done()
	free, err := d.reserveSnapshot(name)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	defer free()
	var s *snapshot
	r, err := b.running()
	switch {
	case errors.Is(err, sandbox.ErrPaused):
		// What is acknowledged can be used.
		if s, err = d.usableSnapshot(b.pausedDir()); err == nil {
			s, err = s.link(d.snapshotDir(name))
		}
	case err == nil:
		s, err = d.capture(ctx, r, d.snapshotDir(name), hostlink.Request{Op: hostlink.OpPrepare})
		if err == nil && !strings.HasPrefix(name, sandbox.Transient) {
			if err = d.sums.add(s); err != nil {
				err = errors.Join(diskError("describe snapshot", err), d.removeLater(s.dir, d.snaps))
			}
		}
	}
	if err != nil {
		return sandbox.Snapshot{}, fmt.Errorf("checkpoint sandbox %s: %w", id, err)
	}
	return s.describe(), nil
}

// reserveSnapshot takes a name until free is called.
func (d *Driver) reserveSnapshot(name string) (free func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err = os.Stat(d.snapshotDir(name))
	if d.taking[name] || err == nil {
		return nil, fmt.Errorf("%w: snapshot %s", sandbox.ErrExists, name)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for snapshot: %w", err)
	}
	d.taking[name] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.taking, name)
	}, nil
}

func (s *snapshot) describe() sandbox.Snapshot {
	return sandbox.Snapshot{
		Name: filepath.Base(s.dir), CreatedAt: s.meta.CreatedAt,
		SizeBytes: s.size(), Resources: s.meta.Frame.Resources,
	}
}

// openSnapshot finds a snapshot that is about to be restored, and looks
// whether it is whole.
func (d *Driver) openSnapshot(name string) (*snapshot, error) {
	if !validID(name) {
		return nil, fmt.Errorf("%w: %q", sandbox.ErrNoSnapshot, name)
	}
	s, err := d.usableSnapshot(d.snapshotDir(name))
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, sandbox.ErrBadSnapshot) {
		return nil, fmt.Errorf("%w: %s", sandbox.ErrNoSnapshot, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", name, err)
	}
	return s, nil
}

// usableSnapshot reads all of a snapshot. sandbox.ErrBadSnapshot when it cannot
// be restored.
func (d *Driver) usableSnapshot(dir string) (*snapshot, error) {
	s, err := d.loadSnapshot(dir)
	if err == nil {
		err = d.sums.check(s)
	}
	if errors.Is(err, errDamaged) || errors.Is(err, errForeign) {
		err = fmt.Errorf("%w: %w", sandbox.ErrBadSnapshot, err)
	}
	return s, err
}

// Snapshots implements sandbox.Copier.
func (d *Driver) Snapshots(context.Context) ([]sandbox.Snapshot, error) {
	entries, err := os.ReadDir(d.snaps)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	out := []sandbox.Snapshot{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partial) {
			continue
		}
		s, err := d.loadSnapshot(d.snapshotDir(e.Name()))
		switch {
		case err == nil:
			out = append(out, s.describe())
		case errors.Is(err, errDamaged) || errors.Is(err, errForeign):
			// It is there, and can be removed; what it holds is not known.
			out = append(out, sandbox.Snapshot{Name: e.Name()})
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return slices.Clip(out), nil
}

// DeleteSnapshot implements sandbox.Copier.
func (d *Driver) DeleteSnapshot(_ context.Context, name string) error {
	if !validID(name) {
		return nil
	}
	if err := d.removeLater(d.snapshotDir(name), d.snaps); err != nil {
		return fmt.Errorf("delete snapshot %s: %w", name, err)
	}
	return nil
}

// removeLater takes a snapshot's name away, so that half of one is never found,
// and removes its files in the background. Should this process end first, the
// next Open removes them from the directory below, where they are meanwhile.
func (d *Driver) removeLater(dir, below string) error {
	gone := filepath.Join(below, partial+"gone-"+newRunID())
	if err := os.Rename(dir, gone); err != nil {
		return ignoreGone(err)
	}
	d.wg.Go(func() {
		if err := os.RemoveAll(gone); err != nil {
			d.cfg.Logger.Error("files of a snapshot not removed", "error", err)
		}
	})
	return nil
}
