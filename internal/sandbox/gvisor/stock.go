package gvisor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/hostlink"
)

// stock is blank runs: processes of gVisor's kernel that have begun, and wait to
// be told what they are. Making one takes a good part of a start or a resume. It
// has one for each of the Config.Standby frames that were used last; it is filled by the pools,
// after them, and goes when AgentCube stops or is killed, as they do.
type stock struct {
	d *Driver

	mu     sync.Mutex
	byKey  map[string]*shelf
	closed bool
}

// shelf has the blank run of one frame.
type shelf struct {
	key   string
	frame frame
	used  time.Time
	after time.Time // when to try again after a failure
	blank *blank    // nil: there is none now
}

// blank is a run that was neither booted nor restored.
type blank struct {
	*run
	ours hostlink.Files // the host's end of its line
}

// stockUnused is how long a frame is kept in mind.
const stockUnused = 15 * time.Minute

func newStock(d *Driver) *stock { return &stock{d: d, byKey: map[string]*shelf{}} }

// expect says that a run of a frame may be wanted soon.
func (s *stock) expect(f frame) {
	if !s.has(f) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shelf(f).used = time.Now()
	s.d.pools.wake()
}

// has reports whether there are blank runs of a frame: where PicoD is not in it,
// nobody could be told its host name.
func (s *stock) has(f frame) bool { return s.d.cfg.Standby > 0 && f.agent() }

func (s *stock) shelf(f frame) *shelf {
	key := f.key(s.d.engine)
	h := s.byKey[key]
	if h == nil {
		h = &shelf{key: key, frame: f}
		s.byKey[key] = h
	}
	return h
}

// take is a blank run for a frame, or nil.
func (s *stock) take(f frame) *blank {
	if !s.has(f) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.shelf(f)
	h.used = time.Now()
	b := h.blank
	h.blank = nil
	return b
}

// lost is told of the end of a run, and reports whether it was in stock.
func (s *stock) lost(r *run) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.byKey {
		if h.blank != nil && h.blank.run == r {
			s.drop(h)
			h.after = time.Now().Add(fillPause)
			return true
		}
	}
	return false
}

// drop removes the blank run of a shelf.
func (s *stock) drop(h *shelf) {
	if h.blank != nil {
		_ = h.blank.ours.Close() // nothing was sent
		s.d.discard(h.blank.run)
		h.blank = nil
	}
}

// next is the frame that a blank run is to be made for, or nil. What is not
// wanted any more goes.
func (s *stock) next() *shelf {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	byUse := make([]*shelf, 0, len(s.byKey))
	for _, h := range s.byKey {
		byUse = append(byUse, h)
	}
	slices.SortFunc(byUse, func(a, b *shelf) int { return b.used.Compare(a.used) })
	now := time.Now()
	var missing *shelf
	for i, h := range byUse {
		switch {
		case i >= s.d.cfg.Standby || now.Sub(h.used) > stockUnused:
			s.drop(h)
			delete(s.byKey, h.key)
		case h.blank == nil && missing == nil && !now.Before(h.after):
			missing = h
		}
	}
	return missing
}

// lacks reports whether a blank run of a frame is about to be made.
func (s *stock) lacks(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.byKey[key]
	return !s.closed && h != nil && h.blank == nil && !time.Now().Before(h.after)
}

// fill makes a blank run for a shelf and reports whether it did.
func (s *stock) fill(h *shelf) bool {
	ctx, cancel := context.WithTimeout(s.d.ctx, buildTimeout)
	defer cancel()
	r, ours, err := s.d.newRun(ctx, h.frame, poolHostname)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		h.after = time.Now().Add(fillPause)
		if s.d.ctx.Err() == nil {
			s.d.cfg.Logger.Error("sandbox process not made ahead", "error", err)
		}
		return false
	}
	made := &blank{run: r, ours: ours}
	gone := false
	select {
	case <-r.gone:
		gone = true
	default:
	}
	if s.closed || gone || h.blank != nil || s.byKey[h.key] != h {
		s.drop(&shelf{blank: made})
		h.after = time.Now().Add(fillPause)
		return false
	}
	h.blank = made
	return true
}

// waiting are the blank runs in stock.
func (s *stock) waiting() (all []*run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.byKey {
		if h.blank != nil {
			all = append(all, h.blank.run)
		}
	}
	return all
}

// close lets the stock go; it must be called before the driver's wait group is
// waited for.
func (s *stock) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, h := range s.byKey {
		s.drop(h)
	}
}

// blankRun is a run for a frame: from stock or, where there is none, new.
func (d *Driver) blankRun(ctx context.Context, f frame, host string) (*blank, error) {
	if b := d.stock.take(f); b != nil {
		return b, nil
	}
	return d.newBlank(ctx, f, host)
}

func (d *Driver) newBlank(ctx context.Context, f frame, host string) (*blank, error) {
	r, ours, err := d.newRun(ctx, f, host)
	if err != nil {
		return nil, fmt.Errorf("make sandbox process: %w", err)
	}
	return &blank{run: r, ours: ours}, nil
}
