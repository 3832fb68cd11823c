package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// adopt finds the sandboxes of earlier processes: those that live are taken
// over, those that ended are reported, those that sleep are left asleep. All
// else is removed: what was being made, and what waited in pools.
func (d *Driver) adopt(ctx context.Context) error {
	named, err := d.adoptRecords(ctx)
	if err != nil {
		return err
	}
	if err := d.removeStrangers(ctx, named); err != nil {
		return err
	}
	if err := removePartial(d.snaps); err != nil {
		return err
	}
	return d.templates.prune()
}

// adoptRecords goes through the records and returns the runs that they name.
func (d *Driver) adoptRecords(ctx context.Context) (map[string]bool, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	named := map[string]bool{}
	for _, e := range entries {
		if !e.IsDir() || !validID(e.Name()) {
			continue
		}
		rec, err := loadRecord(d.boxDir(e.Name()))
		if err != nil || rec.ID != e.Name() {
			d.cfg.Logger.Warn("removing a sandbox without a usable record", "sandbox", e.Name(), "error", err)
			if err := os.RemoveAll(d.boxDir(e.Name())); err != nil {
				return nil, fmt.Errorf("remove sandbox directory: %w", err)
			}
			continue
		}
		if rec.At != nil {
			named[rec.At.Run] = true
		}
		if err := d.adoptOne(rec); err != nil {
			return nil, err
		}
	}
	return named, ctx.Err()
}

func (d *Driver) adoptOne(rec record) error {
	b := newBox(rec, d.boxDir(rec.ID))
	b.ready = true
	close(b.made)
	d.mu.Lock()
	d.boxes[rec.ID] = b
	d.mu.Unlock()
	lost := func(detail string) {
		d.wg.Go(func() { d.ended(b, sandbox.ExitLost, detail) })
	}
	if err := removePartial(b.dir); err != nil {
		return err
	}
	if rec.At == nil {
		if rec.Engine != d.engine {
			lost("it was paused by another version of AgentCube, or on another machine, and cannot be resumed here")
		}
		return nil
	}
	// What was saved of it is older than what it is.
	if err := os.RemoveAll(b.pausedDir()); err != nil {
		return fmt.Errorf("remove old state: %w", err)
	}
	r := d.emptyRun(rec.At.Run, rec.Frame)
	r.at = *rec.At
	b.run = r
	var proc *process
	if rec.At.BootID == d.bootID {
		proc, _ = openProcess(rec.At.PID, rec.At.StartTime)
	}
	// It may have ended, and nobody have collected it yet.
	if proc != nil && proc.ended() {
		proc.close()
		proc = nil
	}
	if proc == nil {
		close(r.gone)
		r.link.close()
		d.wg.Go(func() {
			reason, detail := d.why(r.id, sandbox.ExitLost, "the sandbox was gone when AgentCube came back")
			d.ended(b, reason, detail)
		})
		return nil
	}
	// It may have been about to be saved, without a limit.
	if err := d.groups.limitCPU(r.id, rec.Frame.Resources, true); err != nil {
		return err
	}
	d.cfg.Logger.Info("adopted a sandbox", "sandbox", rec.ID)
	r.proc = proc
	d.mu.Lock()
	d.serving[r] = b
	d.mu.Unlock()
	d.wg.Go(func() { d.watch(r, proc) })
	return nil
}

// removeStrangers ends and removes the runs that no record names.
func (d *Driver) removeStrangers(ctx context.Context, named map[string]bool) error {
	processes, err := sentriesBelow(d.runs)
	if err != nil {
		return err
	}
	strange := map[string]bool{}
	for id := range processes {
		strange[id] = true
	}
	for _, id := range d.groups.ids() {
		strange[id] = true
	}
	entries, err := os.ReadDir(d.runs)
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	for _, e := range entries {
		strange[e.Name()] = true
	}
	for id := range strange {
		if named[id] {
			continue
		}
		d.cfg.Logger.Info("removing what is left of a sandbox", "run", id)
		err := errors.Join(killAll(ctx, processes[id]), d.remove(ctx, d.emptyRun(id, frame{})))
		if err != nil {
			return err
		}
	}
	return nil
}

// removePartial removes directories that were never finished, or were for a moment
// that is over.
func removePartial(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", filepath.Base(dir), err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partial) || strings.HasPrefix(e.Name(), sandbox.Transient) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove what was never finished: %w", err)
			}
		}
	}
	return nil
}
