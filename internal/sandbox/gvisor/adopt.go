package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// adopt finds the sandboxes of earlier processes: those that live are taken
// over, those that ended are reported, those that were never finished go.
func (d *Driver) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	processes, err := sentriesBelow(d.dir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, e := range entries {
		if !e.IsDir() || !validID(e.Name()) {
			continue
		}
		known[e.Name()] = true
		if err := d.adoptOne(ctx, e.Name(), processes[e.Name()]); err != nil {
			return err
		}
	}
	// Groups and processes without a directory cannot come from a driver that
	// was killed, but from somebody who removed directories.
	for id, pids := range processes {
		if !known[id] {
			d.cfg.Logger.Warn("ending a sandbox without a directory", "sandbox", id)
			if err := killAll(ctx, pids); err != nil {
				return err
			}
		}
	}
	for _, id := range d.groups.ids() {
		if !known[id] {
			if err := errors.Join(killAll(ctx, d.groups.members(id)), d.groups.remove(ctx, id)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Driver) adoptOne(ctx context.Context, id string, pids []int) error {
	rec, err := loadRecord(d.boxDir(id))
	if err != nil {
		d.cfg.Logger.Warn("removing a sandbox without a readable record", "sandbox", id, "error", err)
		rec = record{ID: id}
	}
	b := newBox(rec, d.boxDir(id))
	close(b.made)
	d.mu.Lock()
	d.boxes[id] = b
	d.mu.Unlock()

	var proc *process
	if rec.PID != 0 && rec.BootID == d.boot {
		proc, _ = openProcess(rec.PID, rec.StartTime)
	}
	// It may have ended, and nobody have collected it yet.
	if proc != nil && proc.ended() {
		proc.close()
		proc = nil
	}
	switch {
	case !rec.Ready:
		d.cfg.Logger.Info("removing a sandbox that was never finished", "sandbox", id)
		if proc != nil {
			pids = append(pids, proc.pid)
			proc.close()
		}
		if err := killAll(ctx, pids); err != nil {
			return err
		}
		return d.destroy(ctx, b)
	case proc != nil:
		d.cfg.Logger.Info("adopted a sandbox", "sandbox", id)
		b.proc = proc
		d.wg.Go(func() { d.follow(b, proc) })
	default:
		exit := d.why(id, sandbox.ExitLost, "the sandbox was gone when AgentCube came back")
		d.wg.Go(func() { d.ended(b, exit) })
	}
	return nil
}
