package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// FileError is a file that cannot be used as a session store.
type FileError struct {
	Path    string
	Problem string // completes the sentence "<path> ..."
	Fix     string
	Err     error // the cause, or nil
}

// Error implements error.
func (e *FileError) Error() string {
	if e.Err != nil {
		return e.Path + " " + e.Problem + ": " + e.Err.Error()
	}
	return e.Path + " " + e.Problem
}

// Hint says what to do about the problem.
func (e *FileError) Hint() string { return e.Fix }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// migrations bring the schema from version i to i+1. They are added to, never
// changed: files made by them exist.
//
// Times are nanoseconds since 1970, UTC, of the sessions' own clock, whose state is
// in a table; those of tokens and uses are of the machine's. deadline is computed by SQLite so that
// Touch, which writes last_activity alone, moves it too; the comparison is
// written so that no sum can overflow. A quarantined row holds a record that
// could not be read; ended_at is then when that was seen. The idle_timeout of a
// session whose idle time-out does not hold is the longest there is.
var migrations = []string{`
CREATE TABLE sessions (
	id              TEXT PRIMARY KEY,
	version         INTEGER NOT NULL DEFAULT 1,
	owner           TEXT NOT NULL,
	kind            TEXT NOT NULL,
	state           TEXT NOT NULL,
	idempotency_key TEXT,
	created_at      INTEGER NOT NULL,
	expires_at      INTEGER NOT NULL,
	idle_timeout    INTEGER NOT NULL,
	last_activity   INTEGER NOT NULL,
	ended_at        INTEGER NOT NULL,
	quarantined     INTEGER NOT NULL DEFAULT 0,
	record          BLOB NOT NULL,
	deadline        INTEGER GENERATED ALWAYS AS (
		CASE WHEN idle_timeout < expires_at - last_activity THEN last_activity + idle_timeout ELSE expires_at END
	) VIRTUAL
) WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_idempotency ON sessions (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX sessions_due ON sessions (deadline) WHERE state <> 'ended' AND quarantined = 0;
CREATE INDEX sessions_page ON sessions (created_at DESC, id);
CREATE INDEX sessions_owner ON sessions (owner, created_at DESC, id);
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE state = 'ended' OR quarantined = 1;
CREATE TABLE pings (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT INTO pings VALUES (1, 0);
`, `
ALTER TABLE sessions ADD COLUMN pause_after INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN pause_at INTEGER GENERATED ALWAYS AS (
	CASE WHEN pause_after < 9223372036854775807 - last_activity THEN last_activity + pause_after ELSE 9223372036854775807 END
) VIRTUAL;
CREATE INDEX sessions_pause ON sessions (pause_at) WHERE state = 'running' AND pause_after > 0 AND quarantined = 0;
CREATE TABLE checkpoints (
	owner      TEXT NOT NULL,
	name       TEXT NOT NULL,
	snapshot   TEXT NOT NULL UNIQUE,
	created_at INTEGER NOT NULL,
	used_at    INTEGER NOT NULL,
	record     BLOB NOT NULL,
	PRIMARY KEY (owner, name)
) WITHOUT ROWID;
CREATE INDEX checkpoints_used ON checkpoints (used_at);
`, `
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), clock_offset INTEGER NOT NULL, seen INTEGER NOT NULL);
`, `
CREATE TABLE tokens (
	name         TEXT PRIMARY KEY,
	hash         BLOB NOT NULL UNIQUE,
	scopes       TEXT NOT NULL,
	created_by   TEXT NOT NULL,
	created_at   INTEGER NOT NULL,
	expires_at   INTEGER NOT NULL,
	last_used_at INTEGER NOT NULL,
	revoked_at   INTEGER NOT NULL
) WITHOUT ROWID;
`, `
CREATE TABLE uses (
	owner TEXT NOT NULL,
	id    TEXT NOT NULL,
	until INTEGER NOT NULL,
	PRIMARY KEY (owner, id)
) WITHOUT ROWID;
CREATE INDEX uses_until ON uses (owner, until);
`}

// inspect refuses a file that is damaged or is something else, before anything
// is written to it.
func inspect(ctx context.Context, path string) (err error) {
	db, err := openDB(path, 1, "_pragma=query_only(1)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	found, err := quickCheck(ctx, db)
	if err != nil {
		return fileFailure(path, err)
	}
	if found != "ok" {
		return damaged(path, errors.New(found))
	}
	var version, objects int
	// In one statement, as another process may be making the schema just now.
	const query = "SELECT (SELECT user_version FROM pragma_user_version), count(*) FROM sqlite_schema"
	if err := db.QueryRowContext(ctx, query).Scan(&version, &objects); err != nil {
		return fileFailure(path, err)
	}
	switch {
	case version > len(migrations):
		return &FileError{
			Path:    path,
			Problem: fmt.Sprintf("was made by a newer AgentCube (schema %d, this one knows %d)", version, len(migrations)),
			Fix:     "use that version of AgentCube, or another data directory",
		}
	case version < 0, version == 0 && objects > 0:
		return &FileError{Path: path, Problem: "is a SQLite file, but not a session store of AgentCube", Fix: "choose another data directory"}
	}
	return nil
}

// quickCheck returns "ok" or what is wrong.
func quickCheck(ctx context.Context, db *sql.DB) (string, error) {
	rows, err := db.QueryContext(ctx, "PRAGMA quick_check(5)")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return "", err
		}
		found = append(found, line)
	}
	return strings.Join(found, "; "), rows.Err()
}

// migrate brings the schema up to date in one transaction, so that a kill in
// the middle leaves the version that was.
func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version >= len(migrations) {
		return nil
	}
	for _, statements := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, statements); err != nil {
			return fmt.Errorf("migrate schema: %w", err)
		}
	}
	// A PRAGMA takes no bound parameters.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return err
	}
	return tx.Commit()
}

func fileFailure(path string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_NOTADB || e.Code()&0xff == sqlite3.SQLITE_CORRUPT) {
		return damaged(path, err)
	}
	return failure("use "+path, err)
}

func damaged(path string, cause error) error {
	return &FileError{
		Path:    path,
		Problem: "is damaged or is not a session store",
		Fix: fmt.Sprintf("restore %s from a backup, or move it away together with %s-wal and %s-shm and start again; "+
			"without it the sessions that it held are lost and their sandboxes are removed", path, path, path),
		Err: cause,
	}
}
