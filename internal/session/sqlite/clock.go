package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// LoadClock implements session.Clocks.
func (s *Store) LoadClock(ctx context.Context) (session.ClockState, error) {
	var offset, seen int64
	err := s.read.QueryRowContext(ctx, "SELECT clock_offset, seen FROM clock").Scan(&offset, &seen)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return session.ClockState{}, nil
	case err != nil:
		return session.ClockState{}, failure("load clock", err)
	}
	return session.ClockState{Offset: time.Duration(offset), Seen: time.Unix(0, seen).UTC()}, nil
}

// SaveClock implements session.Clocks.
func (s *Store) SaveClock(ctx context.Context, state session.ClockState) error {
	const save = "INSERT OR REPLACE INTO clock (id, clock_offset, seen) VALUES (1, ?, ?)"
	if _, err := s.write.ExecContext(ctx, save, int64(state.Offset), session.Nanos(state.Seen)); err != nil {
		return failure("save clock", err)
	}
	return nil
}
