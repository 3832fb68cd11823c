package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

var checkpointName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// maxCheckpoints bounds the checkpoints of one owner: they take room on disk.
const maxCheckpoints = 1000

// checkpointKey is what a checkpoint is found by.
type checkpointKey struct{ owner, name string }

// Checkpoint keeps the state of a session under a name, for its owner. agreement
// and signed are as for Fork. The record is written when the state is safe: a
// checkpoint that was acknowledged can be used.
func (m *Manager) Checkpoint(ctx context.Context, who auth.Principal, id string, req api.CheckpointRequest, agreement string, signed auth.Agreement) (session.Checkpoint, error) {
	if !checkpointName.MatchString(req.Name) {
		return session.Checkpoint{}, invalid("name must be 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit")
	}
	rec, err := m.copyable(ctx, who, id, agreement, signed)
	if err != nil {
		return session.Checkpoint{}, err
	}
	if err := m.permit(ctx, rec.Owner, 1); err != nil {
		return session.Checkpoint{}, err
	}
	key := checkpointKey{rec.Owner, req.Name}
	free, err := m.reserve(ctx, key)
	if err != nil {
		return session.Checkpoint{}, err
	}
	defer free()
	name := "c-" + uuid.NewString()
	done, err := m.begin(name)
	if err != nil {
		return session.Checkpoint{}, err
	}
	defer done()
	saved, err := m.save(ctx, rec, name)
	if err != nil {
		m.dropSnapshot(name)
		return session.Checkpoint{}, err
	}
	c := checkpointOf(rec, req.Name, saved, m.clock.Now())
	// It does not stop half way when the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := m.cfg.Store.CreateCheckpoint(ctx, c); err != nil {
		m.dropUnrecorded(ctx, c)
		if errors.Is(err, session.ErrExists) {
			return session.Checkpoint{}, checkpointExists(req.Name).WithCause(err)
		}
		return session.Checkpoint{}, fmt.Errorf("record checkpoint: %w", err)
	}
	e := audit.Of(ctx, record.CheckpointCreated)
	e.Owner, e.Session, e.Checkpoint = c.Owner, id, c.Name
	m.cfg.Audit.Append(e)
	m.log.Info("checkpoint made", "session", id, "owner", c.Owner, "checkpoint", c.Name, "bytes", c.SizeBytes)
	return c, nil
}

func checkpointOf(rec session.Session, name string, saved sandbox.Snapshot, now time.Time) session.Checkpoint {
	d := moldOfSession(rec)
	return session.Checkpoint{
		Owner: rec.Owner, Name: name, Snapshot: saved.Name, SizeBytes: saved.SizeBytes, CreatedAt: now, UsedAt: now,
		SessionID: rec.ID, Kind: d.kind, Namespace: d.namespace, Template: d.name, Auth: rec.Auth,
		EntryPoints: d.entryPoints, IdleTimeout: d.idleTimeout, PauseAfter: d.pauseAfter,
		MaxDuration: d.maxDuration, MemoryBytes: d.memory, Env: d.env, Strict: d.strict,
	}
}

func checkpointExists(name string) *api.Error {
	return api.Errorf(http.StatusConflict, api.CodeCheckpointExists, "there is a checkpoint %s already", shorten(name)).
		WithHint("delete it first, or choose another name")
}

// reserve keeps a name for one checkpoint that is being made.
func (m *Manager) reserve(ctx context.Context, key checkpointKey) (free func(), err error) {
	m.mu.Lock()
	taken := m.names[key]
	m.names[key] = true
	m.mu.Unlock()
	if taken {
		return nil, checkpointExists(key.name)
	}
	free = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.names, key)
	}
	if err := m.checkFree(ctx, key); err != nil {
		free()
		return nil, err
	}
	return free, nil
}

// checkFree wants a name that is not taken, of an owner who may have one more.
func (m *Manager) checkFree(ctx context.Context, key checkpointKey) error {
	all, err := m.cfg.Store.ListCheckpoints(ctx, key.owner)
	if err != nil {
		return fmt.Errorf("list checkpoints: %w", err)
	}
	if slices.ContainsFunc(all, func(c session.Checkpoint) bool { return c.Name == key.name }) {
		return checkpointExists(key.name)
	}
	if len(all) >= maxCheckpoints {
		return httpserve.Overloaded().WithHint("you have %d checkpoints, which is the limit; delete one", len(all))
	}
	return nil
}

// begin announces a snapshot that is about to be made, so that nobody takes it
// for a forgotten one until done is called.
func (m *Manager) begin(snapshot string) (done func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return nil, unavailable()
	}
	m.work.Add(1)
	m.snapshots[snapshot] = true
	return func() {
		m.mu.Lock()
		delete(m.snapshots, snapshot)
		m.mu.Unlock()
		m.work.Done()
	}, nil
}

// save copies the sandbox of a session.
func (m *Manager) save(ctx context.Context, rec session.Session, snapshot string) (sandbox.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.CreateTimeout)
	defer cancel()
	defer context.AfterFunc(m.base, cancel)()
	leave, err := m.saves.enter(ctx, rec.Owner)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	defer leave()
	saved, err := m.driver.Checkpoint(ctx, rec.SandboxID, snapshot)
	switch {
	case err == nil:
		return saved, nil
	case m.base.Err() != nil:
		return saved, unavailable()
	case errors.Is(err, sandbox.ErrNotFound), errors.Is(err, sandbox.ErrNotRunning):
		if _, gone := m.made(ctx, rec.ID); gone != nil {
			return saved, gone
		}
		return saved, api.Errorf(http.StatusServiceUnavailable, api.CodeSandboxUnreachable, "the sandbox has ended").WithCause(err)
	}
	return saved, fmt.Errorf("copy sandbox: %w", err)
}

// dropSnapshot removes a snapshot that nobody needs. What fails here the sweep
// tries again.
func (m *Manager) dropSnapshot(name string) {
	ctx, cancel := context.WithTimeout(m.attempts, m.cfg.DeleteTimeout)
	defer cancel()
	if err := m.driver.DeleteSnapshot(ctx, name); err != nil {
		m.log.Error("snapshot not removed", "snapshot", name, "error", err)
	}
}

// dropUnrecorded removes the snapshot of a checkpoint whose record could not be
// written, unless it was after all.
func (m *Manager) dropUnrecorded(ctx context.Context, c session.Checkpoint) {
	there, err := m.cfg.Store.GetCheckpoint(ctx, c.Owner, c.Name)
	if errors.Is(err, session.ErrNoCheckpoint) || err == nil && there.Snapshot != c.Snapshot {
		m.dropSnapshot(c.Snapshot)
	}
}

// Checkpoints lists those of an owner, or of all with "", newest first.
func (m *Manager) Checkpoints(ctx context.Context, owner string) ([]session.Checkpoint, error) {
	all, err := m.cfg.Store.ListCheckpoints(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	return all, nil
}

// DeleteCheckpoint removes a checkpoint of an owner's, if who may, and returns
// what it was. Sessions made from it are not touched.
func (m *Manager) DeleteCheckpoint(ctx context.Context, who auth.Principal, owner, name string) (session.Checkpoint, error) {
	if !checkpointName.MatchString(name) || !who.Sees(owner) {
		return session.Checkpoint{}, unknownCheckpoint(name)
	}
	c, err := m.cfg.Store.GetCheckpoint(ctx, owner, name)
	if err == nil {
		err = m.deleteCheckpoint(ctx, c)
	}
	if errors.Is(err, session.ErrNoCheckpoint) {
		return session.Checkpoint{}, unknownCheckpoint(name).WithCause(err)
	}
	if err != nil {
		return session.Checkpoint{}, fmt.Errorf("delete checkpoint: %w", err)
	}
	return c, nil
}

// deleteCheckpoint removes the record, and then the state: whatever happens in
// between, no record is left without its state.
func (m *Manager) deleteCheckpoint(ctx context.Context, c session.Checkpoint) error {
	done, err := m.begin(c.Snapshot)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := m.cfg.Store.DeleteCheckpoint(ctx, c.Owner, c.Name, c.Snapshot); err != nil {
		return err
	}
	e := audit.Of(ctx, record.CheckpointDeleted)
	e.Owner, e.Checkpoint = c.Owner, c.Name
	m.cfg.Audit.Append(e)
	m.log.Info("checkpoint removed", "owner", c.Owner, "checkpoint", c.Name)
	m.dropSnapshot(c.Snapshot)
	return nil
}
