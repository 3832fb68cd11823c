package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/volcano-sh/agentcube/api/audit"
)

// Append records an event. When that is not possible now it is kept in memory, and
// written before all later ones as soon as it is.
func (l *Log) Append(e audit.Event) {
	if e.Time.IsZero() {
		e.Time = l.cfg.Now()
	}
	e.Time = e.Time.UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.flush()
	if err == nil {
		err = l.write(e)
	}
	if err == nil {
		return
	}
	if len(l.waiting) == maxWaiting {
		l.missing++
		return
	}
	l.waiting = append(l.waiting, e)
}

// Ready reports whether events are recorded. If not, it has tried just now; the
// error wraps ErrUnavailable.
func (l *Log) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// flush writes what waits.
func (l *Log) flush() error {
	for len(l.waiting) > 0 {
		if err := l.write(l.waiting[0]); err != nil {
			return err
		}
		l.waiting = l.waiting[1:]
	}
	if l.missing > 0 {
		gap := audit.Event{Time: l.cfg.Now().UTC(), Action: audit.Missing, Actor: audit.ActorSystem, Count: l.missing}
		if err := l.write(gap); err != nil {
			return err
		}
		l.missing = 0
	}
	return nil
}

// write appends one line, or leaves the record as it was.
func (l *Log) write(e audit.Event) error {
	line, next, err := l.head.Append(e)
	if err != nil {
		// It will never fit: what it was about is more than what it held.
		l.cfg.Logger.Error("audit event is too large", "action", string(e.Action), "error", err)
		line, next, err = l.head.Append(audit.Event{Time: e.Time, Action: e.Action, Actor: e.Actor, Session: e.Session, RequestID: e.RequestID})
		if err != nil {
			return err
		}
	}
	err = l.put(line)
	if (err == nil) != (l.failed == nil) {
		if err != nil {
			l.cfg.Logger.Error("audit record cannot be written", "error", err)
		} else {
			l.cfg.Logger.Info("audit record is written again")
		}
	}
	if l.failed = err; err != nil {
		return err
	}
	l.head, l.dirty = next, true
	return l.rotate()
}

// put writes a line to the newest file.
func (l *Log) put(line []byte) error {
	if l.file == nil {
		f, err := os.OpenFile(filepath.Join(l.cfg.Dir, segmentName(l.head.Seq+1)), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		l.file, l.size = f, 0
	}
	n, err := l.file.Write(line)
	if err == nil {
		l.size += int64(n)
		return nil
	}
	if n > 0 {
		err = errors.Join(err, l.file.Truncate(l.size))
	}
	if l.size == 0 {
		err = errors.Join(err, l.file.Close(), os.Remove(l.file.Name()))
		l.file = nil
	}
	return err
}

// rotate ends a file that is large enough, and removes the oldest when all of them
// are too large.
func (l *Log) rotate() error {
	if l.size < l.cfg.SegmentSize {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file, l.size = nil, 0
	if err != nil {
		l.cfg.Logger.Error("audit file not closed", "error", err)
	}
	l.cfg.Logger.Info("audit file ended", "head", l.head.String())
	if err := l.trim(); err != nil {
		l.cfg.Logger.Error("audit files not removed", "error", err)
	}
	return nil
}

// trim removes the oldest files that are too much, leaving room for a whole one. It
// records each removal first: a file that is recorded as removed and still there
// is none that somebody took away.
func (l *Log) trim() error {
	if l.cfg.MaxSize == 0 {
		return nil
	}
	all, err := segments(l.cfg.Dir)
	if err != nil {
		return err
	}
	total := l.cfg.SegmentSize
	for _, s := range all {
		total += s.size
	}
	for i := 0; total > l.cfg.MaxSize && i+1 < len(all); i++ {
		first, err := firstLine(filepath.Join(l.cfg.Dir, all[i+1].name))
		if err != nil {
			return err
		}
		line, next, err := l.head.Append(audit.Event{
			Time: l.cfg.Now().UTC(), Action: audit.Removed, Actor: audit.ActorSystem,
			Removed: &audit.Head{Seq: first.Seq - 1, Hash: first.Prev},
		})
		if err == nil {
			err = l.put(line)
		}
		if err != nil {
			return err
		}
		l.head, l.dirty = next, true
		if err := os.Remove(filepath.Join(l.cfg.Dir, all[i].name)); err != nil {
			return fmt.Errorf("remove audit file: %w", err)
		}
		total -= all[i].size
	}
	return nil
}
