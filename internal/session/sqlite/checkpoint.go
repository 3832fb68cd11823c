package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// Checkpoints are made and read seldom: their statements are not prepared.
const (
	insertCheckpoint = "INSERT INTO checkpoints (owner, name, snapshot, created_at, used_at, record) VALUES (?, ?, ?, ?, ?, ?)"
	selectCheckpoint = "SELECT owner, name, snapshot, used_at, record FROM checkpoints"
	useCheckpoint    = "UPDATE checkpoints SET used_at = max(used_at, ?) WHERE owner = ? AND name = ?"
	deleteCheckpoint = "DELETE FROM checkpoints WHERE owner = ? AND name = ? AND snapshot = ?"
)

// CreateCheckpoint implements session.Checkpoints.
func (s *Store) CreateCheckpoint(ctx context.Context, c session.Checkpoint) error {
	doing := fmt.Sprintf("create checkpoint %q", c.Name)
	for _, t := range []*time.Time{&c.CreatedAt, &c.UsedAt} {
		*t = t.Round(0).UTC()
	}
	record, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	_, err = s.write.ExecContext(ctx, insertCheckpoint, c.Owner, c.Name, c.Snapshot, session.Nanos(c.CreatedAt), session.Nanos(c.UsedAt), record)
	if taken(err) {
		return fmt.Errorf("%s: %w", doing, session.ErrExists)
	}
	if err != nil {
		return failure(doing, err)
	}
	return nil
}

// GetCheckpoint implements session.Checkpoints.
func (s *Store) GetCheckpoint(ctx context.Context, owner, name string) (session.Checkpoint, error) {
	doing := fmt.Sprintf("get checkpoint %q", name)
	c, err := scanCheckpoint(s.read.QueryRowContext(ctx, selectCheckpoint+" WHERE owner = ? AND name = ?", owner, name))
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, sql.ErrNoRows):
		return session.Checkpoint{}, fmt.Errorf("%s: %w", doing, session.ErrNoCheckpoint)
	case errors.Is(err, ErrUnreadable):
		return session.Checkpoint{}, fmt.Errorf("%s: %w", doing, err)
	}
	return session.Checkpoint{}, failure(doing, err)
}

// ListCheckpoints implements session.Checkpoints. A record that cannot be read
// is listed with what the columns say: its snapshot is not forgotten, and it can
// be deleted.
func (s *Store) ListCheckpoints(ctx context.Context, owner string) ([]session.Checkpoint, error) {
	const order = " ORDER BY created_at DESC, owner, name"
	if owner == "" {
		return s.checkpoints(ctx, "list checkpoints", selectCheckpoint+order)
	}
	return s.checkpoints(ctx, "list checkpoints", selectCheckpoint+" WHERE owner = ?"+order, owner)
}

// UnusedCheckpoints implements session.Checkpoints.
func (s *Store) UnusedCheckpoints(ctx context.Context, usedBefore time.Time, limit int) ([]session.Checkpoint, error) {
	return s.checkpoints(ctx, "find unused checkpoints",
		selectCheckpoint+" WHERE used_at < ? ORDER BY used_at, owner, name LIMIT ?", session.Nanos(usedBefore), limit)
}

func (s *Store) checkpoints(ctx context.Context, doing, query string, args ...any) ([]session.Checkpoint, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failure(doing, err)
	}
	defer rows.Close()
	var all []session.Checkpoint
	for rows.Next() {
		c, err := scanCheckpoint(rows)
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return nil, failure(doing, err)
		}
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return nil, failure(doing, err)
	}
	return all, nil
}

// scanCheckpoint reads one row. When the record in it cannot be read, the error
// matches ErrUnreadable, and what has a column of its own is set all the same.
func scanCheckpoint(row interface{ Scan(...any) error }) (c session.Checkpoint, err error) {
	var key session.Checkpoint
	var usedAt int64
	var record []byte
	if err := row.Scan(&key.Owner, &key.Name, &key.Snapshot, &usedAt, &record); err != nil {
		return c, err
	}
	key.UsedAt = time.Unix(0, usedAt).UTC()
	if err := json.Unmarshal(record, &c); err != nil {
		return key, fmt.Errorf("%w: checkpoint %q: %w", ErrUnreadable, key.Name, err)
	}
	c.Owner, c.Name, c.Snapshot, c.UsedAt = key.Owner, key.Name, key.Snapshot, key.UsedAt
	return c, nil
}

// UseCheckpoint implements session.Checkpoints.
func (s *Store) UseCheckpoint(ctx context.Context, owner, name string, at time.Time) error {
	return s.changeCheckpoint(ctx, fmt.Sprintf("use checkpoint %q", name), useCheckpoint, session.Nanos(at), owner, name)
}

// DeleteCheckpoint implements session.Checkpoints.
func (s *Store) DeleteCheckpoint(ctx context.Context, owner, name, snapshot string) error {
	return s.changeCheckpoint(ctx, fmt.Sprintf("delete checkpoint %q", name), deleteCheckpoint, owner, name, snapshot)
}

func (s *Store) changeCheckpoint(ctx context.Context, doing, query string, args ...any) error {
	result, err := s.write.ExecContext(ctx, query, args...)
	if err != nil {
		return failure(doing, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return failure(doing, err)
	}
	if n == 0 {
		return fmt.Errorf("%s: %w", doing, session.ErrNoCheckpoint)
	}
	return nil
}
