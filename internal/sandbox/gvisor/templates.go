package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// templates are the snapshots that new sandboxes begin with, one for each
// frame: PicoD has begun, and what is to be preloaded is. They can be made
// again at any time, and are, when what is on disk is damaged or foreign.
type templates struct {
	d   *Driver
	dir string

	mu    sync.Mutex
	byKey map[string]*templateSnapshot
}

// templateSnapshot is one, made or being made.
type templateSnapshot struct {
	done chan struct{} // closed when snap or err is set
	snap *snapshot
	err  error
	at   time.Time // of the failure
}

const (
	// buildTimeout bounds the making of a template snapshot.
	buildTimeout = 5 * time.Minute
	// buildPause is how long a failure keeps Create from trying again.
	buildPause = time.Minute
	// templateUnused is after how long without use a template snapshot is removed.
	templateUnused = 14 * 24 * time.Hour
)

// ready is the snapshot of a frame, or nil; it is made in the background then.
func (t *templates) ready(f frame) *snapshot {
	s := t.get(f, nil)
	select {
	case <-s.done:
		return s.snap
	default:
		return nil
	}
}

// wait is the snapshot of a frame, made when there is none.
func (t *templates) wait(ctx context.Context, f frame, progress func(string)) (*snapshot, error) {
	s := t.get(f, progress)
	select {
	case <-s.done:
		return s.snap, s.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for template snapshot: %w", ctx.Err())
	}
}

func (t *templates) get(f frame, progress func(string)) *templateSnapshot {
	key := f.key(t.d.engine)
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byKey[key]
	if s != nil && !s.failed() {
		return s
	}
	// Who waits for it is told of a failure; who asks again later tries again.
	if s != nil && progress == nil && time.Since(s.at) < buildPause {
		return s
	}
	if progress == nil {
		progress = func(string) {}
	}
	s = &templateSnapshot{done: make(chan struct{})}
	t.byKey[key] = s
	t.d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.d.ctx, buildTimeout)
		defer cancel()
		snap, err := t.findOrBuild(ctx, f, filepath.Join(t.dir, key), progress)
		if err != nil && t.d.ctx.Err() == nil {
			t.d.cfg.Logger.Error("template snapshot not made, sandboxes are booted", "image", f.Image, "error", err)
		}
		t.mu.Lock()
		s.snap, s.err, s.at = snap, err, time.Now()
		t.mu.Unlock()
		close(s.done)
	})
	return s
}

func (s *templateSnapshot) failed() bool {
	select {
	case <-s.done:
		return s.err != nil
	default:
		return false
	}
}

// drop forgets a snapshot that turned out not to work.
func (t *templates) drop(f frame) {
	key := f.key(t.d.engine)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byKey[key]; s == nil || s.snap == nil {
		return
	}
	delete(t.byKey, key)
	if err := os.RemoveAll(filepath.Join(t.dir, key)); err != nil {
		t.d.cfg.Logger.Error("template snapshot not removed", "error", err)
	}
}

// findOrBuild uses what an earlier process made, if it is whole.
func (t *templates) findOrBuild(ctx context.Context, f frame, dir string, progress func(string)) (*snapshot, error) {
	s, err := t.d.loadSnapshot(dir)
	if err == nil {
		progress("checking the snapshot")
		err = t.d.sums.check(s)
	}
	if err == nil {
		now := time.Now()
		_ = os.Chtimes(filepath.Join(dir, metaFile), now, now) // says that it is in use
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, errForeign) {
		t.d.cfg.Logger.Warn("template snapshot made again", "image", f.Image, "cause", err.Error())
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove template snapshot: %w", err)
	}
	return t.build(ctx, f, dir, progress)
}

// build boots a sandbox once and keeps what it is when it is ready.
func (t *templates) build(ctx context.Context, f frame, dir string, progress func(string)) (*snapshot, error) {
	begun := time.Now()
	progress("starting a sandbox")
	r, err := t.d.boot(ctx, f, poolHostname)
	if err != nil {
		return nil, err
	}
	if len(f.Preload) > 0 {
		progress("importing " + strings.Join(f.Preload, ", "))
	}
	s, err := t.d.capture(ctx, r, dir, hostlink.Request{Op: hostlink.OpPrepare, Complete: true})
	if err == nil {
		err = t.d.sums.add(s)
	}
	clean, done := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer done()
	if err = errors.Join(err, t.d.remove(clean, r)); err != nil {
		return nil, err
	}
	progress(fmt.Sprintf("saved %d MiB", s.size()>>20))
	t.d.cfg.Logger.Info("template snapshot made", "image", f.Image, "preload", f.Preload, "bytes", s.size(), "duration", time.Since(begun))
	return s, nil
}

// prune removes what nobody has used for long, what no program can use and
// what was never finished.
func (t *templates) prune() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return fmt.Errorf("list template snapshots: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(t.dir, e.Name())
		info, err := os.Stat(filepath.Join(dir, metaFile))
		if err == nil && time.Since(info.ModTime()) < templateUnused {
			if _, err = t.d.loadSnapshot(dir); err == nil {
				continue
			}
			t.d.cfg.Logger.Warn("template snapshot removed", "snapshot", e.Name(), "cause", err.Error())
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove template snapshot: %w", err)
		}
	}
	return nil
}

// Prepare implements sandbox.Warmer.
func (d *Driver) Prepare(ctx context.Context, spec sandbox.Spec, progress func(step string)) error {
	spec.ID, spec.Snapshot = "prepare", ""
	spec, err := withDefaults(spec)
	if err != nil {
		return err
	}
	f, err := d.frame(ctx, spec)
	if err != nil {
		return err
	}
	if !f.agent() {
		return fmt.Errorf("%w: a sandbox with a command of its own cannot say when it is ready", sandbox.ErrUnsupported)
	}
	d.mu.Lock()
	usable := d.open && !d.closed
	if usable {
		d.wg.Add(1)
	}
	d.mu.Unlock()
	if !usable {
		return sandbox.ErrClosed
	}
	defer d.wg.Done()
	if progress == nil {
		progress = func(string) {}
	}
	if _, err := d.templates.wait(ctx, f, progress); err != nil {
		return fmt.Errorf("prepare template: %w", err)
	}
	d.stock.expect(f)
	if err := d.pools.full(ctx, f.key(d.engine)); err != nil {
		return fmt.Errorf("prepare template: %w", err)
	}
	return nil
}
