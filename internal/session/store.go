package session

import (
	"context"
	"errors"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// Errors that stores return, wrapped; test with errors.Is.
var (
	ErrNotFound = errors.New("session not found")
	ErrExists   = errors.New("session already exists")
	// ErrUnavailable: the store itself failed (disk full, connection lost);
	// the call may be repeated.
	ErrUnavailable = errors.New("session store unavailable")
	// ErrAway comes with ErrUnavailable where the store cannot be reached, or is
	// just starting or changing its leader: what was asked may well succeed in a
	// moment.
	ErrAway = errors.New("session store is away")
	// ErrFixed is about an Update that changes what never changes.
	ErrFixed = errors.New("owner, time of creation and idempotency key of a session are fixed")
)

// Store keeps session records. All methods are safe for concurrent use by
// several goroutines and, where the store is shared, several processes. What a
// method has acknowledged survives the death of the process.
//
// A store is made by its package's New (no I/O) and started by Open.
type Store interface {
	// Create adds a record. When s.IdempotencyKey is set and the same owner
	// already has a session with it that is not purged, nothing is added and
	// that session is returned with ErrExists. ErrExists with the zero
	// Session when the id is taken.
	Create(ctx context.Context, s Session) (Session, error)

	// Get returns the record, ended or not; ErrNotFound otherwise.
	Get(ctx context.Context, id string) (Session, error)

	// Update changes a record atomically: change gets the current record and
	// edits it; when it returns an error nothing is written and Update returns
	// that error. change may be called more than once. LastActivity and the ID
	// cannot be changed by it; Owner, CreatedAt and IdempotencyKey, by which
	// sessions are found, must not be: ErrFixed, unless it is that the key is
	// taken away. It returns the record as written.
	Update(ctx context.Context, id string, change func(*Session) error) (Session, error)

	// Touch moves LastActivity forward to at; an earlier time changes nothing.
	// ErrNotFound when there is no such session.
	Touch(ctx context.Context, id string, at time.Time) error

	// List returns records that match q, newest first (CreatedAt descending,
	// then ID), at most q.Limit of them, and the cursor for the next page or
	// "". A cursor stays valid while sessions come and go.
	List(ctx context.Context, q Query) (page []Session, next string, err error)

	// Due returns up to limit sessions that are not ended and whose Deadline
	// is at or before now, most overdue first. A record that cannot be read
	// is reported through the error joined to the result, and hides no other.
	Due(ctx context.Context, now time.Time, limit int) ([]Session, error)

	// Purge removes records that ended before the given time and says how many.
	Purge(ctx context.Context, endedBefore time.Time) (int, error)
}

// Sleepers is a Store that finds the sessions that are to be paused.
type Sleepers interface {
	// PauseDue returns up to limit running sessions for which Session.PauseDue
	// holds, most overdue first. Records that cannot be read are left out.
	PauseDue(ctx context.Context, now time.Time, limit int) ([]Session, error)
}

// Pinger is a Store that can say whether it is there.
type Pinger interface {
	// Ping returns nil when a write would succeed now.
	Ping(ctx context.Context) error
}

// Query selects sessions for List. Empty fields select all.
type Query struct {
	Owner  string
	States []api.State
	Kind   string
	// IdempotencyKey finds the one session that an owner has with this key.
	IdempotencyKey string
	// Limit is the page size, 1 to 1000; 0 means 100.
	Limit int
	// Cursor is what the page before returned; a malformed one is ErrBadCursor.
	Cursor string
}

// ErrBadCursor is about a page token that this store did not make.
var ErrBadCursor = errors.New("malformed page token")
