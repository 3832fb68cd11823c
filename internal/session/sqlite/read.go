package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// Get implements session.Store.
func (s *Store) Get(ctx context.Context, id string) (session.Session, error) {
	rec, _, err := s.get(ctx, fmt.Sprintf("get session %q", id), id)
	return rec, err
}

func (s *Store) get(ctx context.Context, doing, id string) (session.Session, int64, error) {
	rec, version, err := scan(s.stmts.get.QueryRowContext(ctx, id))
	switch {
	case err == nil:
		return rec, version, nil
	case errors.Is(err, sql.ErrNoRows):
		return session.Session{}, 0, fmt.Errorf("%s: %w", doing, session.ErrNotFound)
	case errors.Is(err, ErrUnreadable):
		return session.Session{}, 0, fmt.Errorf("%s: %w", doing, err)
	}
	return session.Session{}, 0, failure(doing, err)
}

// Due implements session.Store. A record that cannot be read is reported once,
// by the call that comes upon it, and then set aside until Purge removes it.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	var due []session.Session
	var unreadable []error
	for len(due) < limit {
		page, bad, err := s.dueOnce(ctx, now, limit)
		if err != nil {
			return due, errors.Join(append(unreadable, err)...)
		}
		due = page
		if len(bad) == 0 {
			break
		}
		// With the bad ones out of the way, the rest comes into reach.
		for _, b := range bad {
			unreadable = append(unreadable, b.err)
			if _, err := s.stmts.quarantine.ExecContext(ctx, session.Nanos(now), b.id, b.version); err != nil {
				return due, errors.Join(append(unreadable, failure("set unreadable session aside", err))...)
			}
		}
	}
	return due, errors.Join(unreadable...)
}

type badRow struct {
	id      string
	version int64
	err     error
}

func (s *Store) dueOnce(ctx context.Context, now time.Time, limit int) (due []session.Session, bad []badRow, err error) {
	rows, err := s.stmts.due.QueryContext(ctx, session.Nanos(now), limit)
	if err != nil {
		return nil, nil, failure("find due sessions", err)
	}
	defer rows.Close()
	for rows.Next() {
		rec, version, err := scan(rows)
		switch {
		case errors.Is(err, ErrUnreadable):
			bad = append(bad, badRow{rec.ID, version, err})
		case err != nil:
			return nil, nil, failure("find due sessions", err)
		default:
			due = append(due, rec)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, failure("find due sessions", err)
	}
	return due, bad, nil
}

// PauseDue implements session.Sleepers.
func (s *Store) PauseDue(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	rows, err := s.stmts.pauseDue.QueryContext(ctx, session.Nanos(now), limit)
	if err != nil {
		return nil, failure("find idle sessions", err)
	}
	defer rows.Close()
	var due []session.Session
	for rows.Next() {
		rec, _, err := scan(rows)
		switch {
		case errors.Is(err, ErrUnreadable): // Due reports it
		case err != nil:
			return nil, failure("find idle sessions", err)
		default:
			due = append(due, rec)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, failure("find idle sessions", err)
	}
	return due, nil
}

// List implements session.Store. Records that cannot be read are left out.
func (s *Store) List(ctx context.Context, q session.Query) ([]session.Session, string, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	query, args, err := listQuery(q)
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	// One more than the page holds tells whether there is a next one.
	rows, err := s.read.QueryContext(ctx, query, append(args, limit+1)...)
	if err != nil {
		return nil, "", failure("list sessions", err)
	}
	defer rows.Close()
	page := []session.Session{}
	var at int64
	var last session.Place
	for n := 0; rows.Next(); n++ {
		if n == limit {
			return page, last.Cursor(), nil
		}
		rec, _, err := scan(prefixed{rows, &at})
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return nil, "", failure("list sessions", err)
		}
		last = session.Place{CreatedAt: at, ID: rec.ID}
		if err == nil {
			page = append(page, rec)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, "", failure("list sessions", err)
	}
	return page, "", nil
}

// prefixed scans one column ahead of those that scan reads.
type prefixed struct {
	rows  *sql.Rows
	first any
}

func (p prefixed) Scan(dest ...any) error { return p.rows.Scan(append([]any{p.first}, dest...)...) }

// listQuery builds the statement of List; only constants become text of it.
func listQuery(q session.Query) (string, []any, error) {
	var where []string
	var args []any
	if q.Cursor != "" {
		c, err := session.ParseCursor(q.Cursor)
		if err != nil {
			return "", nil, err
		}
		where = append(where, "(created_at < ? OR (created_at = ? AND id > ?))")
		args = append(args, c.CreatedAt, c.CreatedAt, c.ID)
	}
	if q.Owner != "" {
		where = append(where, "owner = ?")
		args = append(args, q.Owner)
	}
	if q.Kind != "" {
		where = append(where, "kind = ?")
		args = append(args, q.Kind)
	}
	if q.IdempotencyKey != "" {
		where = append(where, "idempotency_key = ?")
		args = append(args, q.IdempotencyKey)
	}
	if len(q.States) > 0 {
		where = append(where, "state IN (?"+strings.Repeat(", ?", len(q.States)-1)+")")
		for _, state := range q.States {
			args = append(args, string(state))
		}
	}
	query := "SELECT created_at, " + columns + " FROM sessions"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	return query + " ORDER BY created_at DESC, id LIMIT ?", args, nil
}
