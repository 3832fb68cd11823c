package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	readers       = 4
	busyTimeoutMS = "10000"
)

// Store is a session.Store in a SQLite file. It also implements
// session.Sleepers, session.Checkpoints, session.Clocks, session.Pinger,
// session.Once and auth.TokenStore.
type Store struct {
	path string

	closeOnce sync.Once
	closeErr  error
	write     *sql.DB // one connection
	read      *sql.DB
	stmts     statements
}

var (
	_ session.Store       = (*Store)(nil)
	_ session.Sleepers    = (*Store)(nil)
	_ session.Checkpoints = (*Store)(nil)
	_ session.Clocks      = (*Store)(nil)
	_ session.Pinger      = (*Store)(nil)
	_ session.Once        = (*Store)(nil)
	_ auth.TokenStore     = (*Store)(nil)
)

// New returns a store in the file at path. Nothing is read or written before
// Open, and no other method may be called.
func New(path string) *Store { return &Store{path: path} }

// Open opens the file, making it, with mode 0600, when there is none, checks
// that it is undamaged, and brings it to the present schema. A file that cannot
// be used is left as it is and reported with a *FileError.
func (s *Store) Open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open session store: %w", errors.Join(err, s.Close()))
		}
	}()
	if err := prepareFile(s.path); err != nil {
		return err
	}
	if err := inspect(ctx, s.path); err != nil {
		return err
	}
	if s.write, err = openDB(s.path, 1, "_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=journal_size_limit(67108864)"); err != nil {
		return err
	}
	if err := migrate(ctx, s.write); err != nil {
		return fileFailure(s.path, err)
	}
	if s.read, err = openDB(s.path, readers, "_pragma=query_only(1)"); err != nil {
		return err
	}
	return s.stmts.prepare(ctx, s.write, s.read)
}

// Close ends the store. Methods that are called later fail with
// session.ErrUnavailable.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		// Readers first: the last connection to go folds the log into the file.
		if s.read != nil {
			s.closeErr = errors.Join(s.stmts.closeReaders(), s.read.Close())
		}
		if s.write != nil {
			s.closeErr = errors.Join(s.closeErr, s.stmts.closeWriters(), s.write.Close())
		}
	})
	return s.closeErr
}

// Ping implements session.Pinger by writing one row.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.stmts.ping.ExecContext(ctx); err != nil {
		return failure("ping session store", err)
	}
	return nil
}

// prepareFile sees to it that the file exists and only its owner can use it.
// SQLite gives its log and index files the same mode.
func prepareFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &FileError{Path: path, Problem: "is not a regular file", Fix: "remove it or choose another data directory"}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &FileError{
			Path:    path,
			Problem: fmt.Sprintf("can be read or changed by other users (mode %04o)", mode),
			Fix:     "chmod 600 " + path,
		}
	}
	return nil
}

func openDB(path string, connections int, params string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: "_pragma=busy_timeout(" + busyTimeoutMS + ")&_pragma=trusted_schema(0)&" + params}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}
