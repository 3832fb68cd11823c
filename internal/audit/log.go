package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/api/audit"
)

const (
	// defaultSegment is the size in bytes from which a file is not continued.
	defaultSegment = 32 << 20
	// syncEvery is how often what was written goes to the disk.
	syncEvery = time.Second
	// maxWaiting bounds the events that wait for room on the disk.
	maxWaiting = 10_000
	// lockName is the file that tells that a process writes.
	lockName = "lock"
)

// ErrUnavailable is wrapped by errors of Ready.
var ErrUnavailable = errors.New("the audit record cannot be written")

// ErrDamaged is wrapped by the error of Open when what is there cannot be continued.
var ErrDamaged = errors.New("the audit record is damaged")

// Config of a Log. Fields without a default are required.
type Config struct {
	Dir string
	// MaxSize bounds all files together, in bytes: the oldest are removed, and
	// that is recorded. 0 means no bound.
	MaxSize int64
	// SegmentSize is from how many bytes a file is not continued; 0 means 32 MiB,
	// or a quarter of MaxSize where that is less.
	SegmentSize int64
	// Logger; nil means slog.Default().
	Logger *slog.Logger
	// Now; nil means time.Now.
	Now func() time.Time
}

// Log is the record. It is safe for concurrent use.
type Log struct {
	cfg Config

	lock *os.File
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	file    *os.File // nil: the next line begins one
	size    int64    // of file
	dirty   bool     // it has what is not on the disk yet
	head    audit.Head
	waiting []audit.Event
	missing uint64 // events that found no room in waiting
	failed  error  // of the last attempt to write; nil: it succeeded
}

// New returns a Log. It does no I/O.
func New(cfg Config) *Log {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = defaultSegment
		if cfg.MaxSize > 0 {
			cfg.SegmentSize = min(cfg.SegmentSize, cfg.MaxSize/4)
		}
	}
	return &Log{cfg: cfg, stop: make(chan struct{})}
}

// Open continues the record in the folder, or begins one.
func (l *Log) Open(context.Context) (err error) {
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("open audit record: %w", err)
	}
	l.lock, err = os.OpenFile(filepath.Join(l.cfg.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open audit record: %w", err)
	}
	defer func() {
		if err != nil {
			l.lock.Close()
		}
	}()
	if err := unix.Flock(int(l.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("open audit record: another process writes to %s: %w", l.cfg.Dir, err)
	}
	torn, err := l.resume()
	if err != nil {
		return err
	}
	if torn > 0 {
		l.Append(audit.Event{Action: audit.Recovered, Actor: audit.ActorSystem, Torn: torn})
	}
	l.Append(audit.Event{Action: audit.Started, Actor: audit.ActorSystem})
	l.done.Go(l.sync)
	return nil
}

// resume finds where the record ends, and returns how much of a line was taken away
// there.
func (l *Log) resume() (torn int64, err error) {
	names, err := segments(l.cfg.Dir)
	if err != nil || len(names) == 0 {
		return 0, err
	}
	last := names[len(names)-1]
	path := filepath.Join(l.cfg.Dir, last.name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return 0, fmt.Errorf("open audit record: %w", err)
	}
	line, size, torn, err := tail(f)
	if err == nil && torn > 0 {
		err = f.Truncate(size)
	}
	switch {
	case err != nil:
		return 0, errors.Join(fmt.Errorf("open audit record: %w: %s: %w", ErrDamaged, path, err), f.Close())
	case size == 0:
		// The file was begun, and no line of it was finished.
		if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
			return 0, fmt.Errorf("open audit record: %w", err)
		}
		before, err := l.resume()
		return torn + before, err
	}
	l.file, l.size, l.head = f, size, line.Head
	return torn, nil
}

// Close writes out what waits, and ends the record's use.
func (l *Log) Close() error {
	close(l.stop)
	l.done.Wait()
	l.Append(audit.Event{Action: audit.Stopped, Actor: audit.ActorSystem})
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.failed
	if l.file != nil {
		err = errors.Join(err, l.file.Sync(), l.file.Close())
	}
	l.file = nil
	return errors.Join(err, l.lock.Close())
}

// sync brings what was written to the disk.
func (l *Log) sync() {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.stop:
			return
		}
		l.mu.Lock()
		file, dirty := l.file, l.dirty
		l.dirty = false
		l.mu.Unlock()
		if !dirty || file == nil {
			continue
		}
		// Nobody waits for the disk. A file that was closed meanwhile is there.
		if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			l.cfg.Logger.Error("audit record not on disk", "error", err)
		}
	}
}

// Head is where the record ends now.
func (l *Log) Head() audit.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}
