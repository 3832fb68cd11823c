package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// purgeBatch bounds how many rows one transaction of Purge removes, so that it
// does not keep Touch waiting.
const purgeBatch = 500

// Create implements session.Store.
func (s *Store) Create(ctx context.Context, rec session.Session) (session.Session, error) {
	doing := fmt.Sprintf("create session %q", rec.ID)
	rec, record, err := encode(rec)
	if err != nil {
		return session.Session{}, err
	}
	for {
		_, err = s.stmts.insert.ExecContext(ctx, append(columnValues(rec, record), session.Nanos(rec.LastActivity))...)
		if err == nil {
			rec.LastActivity = time.Unix(0, session.Nanos(rec.LastActivity)).UTC()
			return rec, nil
		}
		if !taken(err) {
			return session.Session{}, failure(doing, err)
		}
		if rec.IdempotencyKey == "" {
			return session.Session{}, fmt.Errorf("%s: %w", doing, session.ErrExists)
		}
		// The key counts before the id: a repeated request finds its session.
		first, _, err := scan(s.stmts.idempotent.QueryRowContext(ctx, rec.Owner, rec.IdempotencyKey))
		switch {
		case err == nil:
			return first, fmt.Errorf("%s: %w", doing, session.ErrExists)
		case errors.Is(err, ErrUnreadable):
			return session.Session{}, fmt.Errorf("%s: %w", doing, err)
		case !errors.Is(err, sql.ErrNoRows):
			return session.Session{}, failure(doing, err)
		}
		var one int
		err = s.stmts.exists.QueryRowContext(ctx, rec.ID).Scan(&one)
		if err == nil {
			return session.Session{}, fmt.Errorf("%s: %w", doing, session.ErrExists)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return session.Session{}, failure(doing, err)
		}
		// What was in the way has been purged since: once more.
	}
}

// Update implements session.Store. change runs outside any transaction; when
// another writer came in between, it runs again on the newer record.
func (s *Store) Update(ctx context.Context, id string, change func(*session.Session) error) (session.Session, error) {
	doing := fmt.Sprintf("update session %q", id)
	for {
		rec, version, err := s.get(ctx, doing, id)
		if err != nil {
			return session.Session{}, err
		}
		before := rec
		if err := change(&rec); err != nil {
			return session.Session{}, err
		}
		rec.ID, rec.LastActivity = id, before.LastActivity
		if err := before.MayBecome(rec); err != nil {
			return session.Session{}, fmt.Errorf("%s: %w", doing, err)
		}
		rec, record, err := encode(rec)
		if err != nil {
			return session.Session{}, err
		}
		result, err := s.stmts.update.ExecContext(ctx, append(columnValues(rec, record)[1:], id, version)...)
		if err != nil {
			return session.Session{}, failure(doing, err)
		}
		if n, err := result.RowsAffected(); err != nil || n > 0 {
			return rec, err
		}
	}
}

// columnValues are the values of insert, and from the second one of update.
func columnValues(s session.Session, record []byte) []any {
	idle := max(int64(s.IdleTimeout), 0)
	if !s.Idles() {
		idle = math.MaxInt64
	}
	return []any{
		s.ID, s.Owner, s.Kind, string(s.State), nullable(s.IdempotencyKey), session.Nanos(s.CreatedAt), session.Nanos(s.ExpiresAt),
		idle, max(int64(s.PauseAfter), 0), session.Nanos(s.EndedAt), record,
	}
}

// Touch implements session.Store.
func (s *Store) Touch(ctx context.Context, id string, at time.Time) error {
	doing := fmt.Sprintf("touch session %q", id)
	result, err := s.stmts.touch.ExecContext(ctx, session.Nanos(at), id)
	if err != nil {
		return failure(doing, err)
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	var one int
	err = s.stmts.exists.QueryRowContext(ctx, id).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", doing, session.ErrNotFound)
	}
	if err != nil {
		return failure(doing, err)
	}
	return nil
}

// Purge implements session.Store. Rows that Due has set aside are removed too,
// once that is as long ago.
func (s *Store) Purge(ctx context.Context, endedBefore time.Time) (int, error) {
	total := 0
	for {
		result, err := s.stmts.purge.ExecContext(ctx, session.Nanos(endedBefore), purgeBatch)
		if err != nil {
			return total, failure("purge sessions", err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return total, failure("purge sessions", err)
		}
		total += int(n)
		if n < purgeBatch {
			return total, nil
		}
	}
}
