package sqlite

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// ErrUnreadable says that the row is there, but what it holds cannot be decoded.
var ErrUnreadable = errors.New("session record is unreadable")

// columns are what scan reads, in its order.
const columns = "id, version, last_activity, record"

// scan reads one row. When the record in it cannot be read, the error matches
// ErrUnreadable and the id is set all the same.
func scan(row interface{ Scan(...any) error }) (s session.Session, version int64, err error) {
	var id string
	var lastActivity int64
	var record []byte
	if err := row.Scan(&id, &version, &lastActivity, &record); err != nil {
		return session.Session{}, 0, err
	}
	if err := json.Unmarshal(record, &s); err != nil {
		return session.Session{ID: id}, version, fmt.Errorf("%w: %q: %w", ErrUnreadable, id, err)
	}
	if s.ID != id {
		return session.Session{ID: id}, version, fmt.Errorf("%w: %q holds the record of another session", ErrUnreadable, id)
	}
	s.LastActivity = time.Unix(0, lastActivity).UTC()
	return s, version, nil
}

// encode returns the record as it is stored: with times in UTC, which is how
// they come back.
func encode(s session.Session) (session.Session, []byte, error) {
	s = s.InUTC()
	record, err := json.Marshal(s)
	if err != nil {
		return s, nil, fmt.Errorf("encode session %q: %w", s.ID, err)
	}
	return s, record, nil
}

// nullable stores an empty idempotency key as NULL, which the unique index
// leaves out.
func nullable(key string) sql.NullString { return sql.NullString{String: key, Valid: key != ""} }
