package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// expireBatch is how many forgotten checkpoints one look removes.
const expireBatch = 256

// expireCheckpoints removes the checkpoints that nobody has used for long.
func (m *Manager) expireCheckpoints(ctx context.Context) {
	if m.cfg.CheckpointRetention <= 0 {
		return
	}
	old, err := m.cfg.Store.UnusedCheckpoints(ctx, m.clock.Now().Add(-m.cfg.CheckpointRetention), expireBatch)
	if err != nil {
		if ctx.Err() == nil {
			m.log.Error("forgotten checkpoints not listed", "error", err)
		}
		return
	}
	for _, c := range old {
		err := m.deleteCheckpoint(ctx, c)
		if err != nil && ctx.Err() == nil && !errors.Is(err, session.ErrNoCheckpoint) {
			m.log.Error("forgotten checkpoint not removed", "owner", c.Owner, "checkpoint", c.Name, "error", err)
		}
	}
}

// sweep makes records of checkpoints and snapshots agree: a snapshot that has no
// record is of a process that died, or of a removal that failed, and goes; a
// record whose snapshot is lost goes too.
func (m *Manager) sweep(ctx context.Context) error {
	// What is read later may know of more, but what is in use when the records
	// are read is not done before.
	before, err := m.snapshotNames(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	inUse := maps.Clone(m.snapshots)
	m.mu.Unlock()
	records, err := m.cfg.Store.ListCheckpoints(ctx, "")
	if err != nil {
		return fmt.Errorf("list checkpoints: %w", err)
	}
	after, err := m.snapshotNames(ctx)
	if err != nil {
		return err
	}
	for _, c := range records {
		delete(before, c.Snapshot)
		if _, there := after[c.Snapshot]; there {
			continue
		}
		m.log.Error("checkpoint is lost", "owner", c.Owner, "checkpoint", c.Name, "snapshot", c.Snapshot)
		if err := m.cfg.Store.DeleteCheckpoint(ctx, c.Owner, c.Name, c.Snapshot); err != nil && !errors.Is(err, session.ErrNoCheckpoint) {
			return fmt.Errorf("remove record of a lost checkpoint: %w", err)
		}
	}
	now := m.clock.Wall(m.clock.Now())
	for name, made := range before {
		// Others may have a record of it to write, or sandboxes to make.
		young := m.cfg.Shared && now.Sub(made) < m.cfg.SettleAge
		if !inUse[name] && !young {
			m.log.Warn("snapshot without a checkpoint removed", "snapshot", name)
			m.dropSnapshot(name)
		}
	}
	return nil
}

// snapshotNames are the snapshots that there are, and when they were made.
func (m *Manager) snapshotNames(ctx context.Context) (map[string]time.Time, error) {
	list, err := m.driver.Snapshots(ctx)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	names := make(map[string]time.Time, len(list))
	for _, s := range list {
		names[s.Name] = s.CreatedAt
	}
	return names, nil
}
