package session

import (
	"context"
	"sync"
	"time"
)

// jumpTolerance is how far the machine's clock may get away from the time of
// sessions before that counts as a jump. Reading both takes a moment too.
const jumpTolerance = 2 * time.Second

// Clock is the time that sessions live by, which all times in records are of.
// It goes on evenly: where somebody sets the machine's clock, or the machine
// sleeps, it neither leaps nor waits, and each session keeps the time that it has
// left. What is shown to users is of the machine's clock, which Wall translates
// to.
//
// While no process is there to watch, the machine's clock is believed: Resume
// counts what it says has passed. It never goes back. A Clock is safe for
// concurrent use.
//
// Where sessions are shared by several machines, no process has a monotonic clock
// that the others know: there it is a wall clock, see NewWallClock.
type Clock struct {
	read func() (wall time.Time, elapsed time.Duration)
	wall bool // the time of sessions is the machine's

	mu     sync.Mutex
	origin time.Time     // what Now was when elapsed was 0
	offset time.Duration // how far the machine's clock is ahead of Now
}

// ClockState is what a later process needs to go on with the same time.
type ClockState struct {
	// Offset is how far the machine's clock was ahead of that of sessions.
	Offset time.Duration
	// Seen is when that was, as the clock of sessions says.
	Seen time.Time
}

// Clocks is a Store that keeps the state of its sessions' clock.
type Clocks interface {
	// LoadClock returns what SaveClock was given last; zero when it never was.
	LoadClock(ctx context.Context) (ClockState, error)
	// SaveClock keeps the state for a later process.
	SaveClock(ctx context.Context, state ClockState) error
}

// NewClock returns a clock that agrees with the machine's.
func NewClock() *Clock {
	begin := time.Now()
	return NewClockOf(func() (time.Time, time.Duration) {
		now := time.Now()
		return now.Round(0).UTC(), now.Sub(begin)
	})
}

// NewClockOf returns a clock for a machine whose own clock, and one that nobody
// sets, are read by a function. Both are read at the same moment.
func NewClockOf(read func() (wall time.Time, elapsed time.Duration)) *Clock {
	wall, elapsed := read()
	return &Clock{read: read, origin: wall.Add(-elapsed)}
}

// NewWallClock returns a clock that is the machine's own, also when that is set:
// what several machines have in common, as far as time servers see to it. It has
// nothing to follow or to resume.
func NewWallClock() *Clock {
	return NewWallClockOf(func() time.Time { return time.Now().Round(0).UTC() })
}

// NewWallClockOf is NewWallClock for a machine whose clock is read by a function.
func NewWallClockOf(read func() time.Time) *Clock {
	return &Clock{wall: true, read: func() (time.Time, time.Duration) { return read(), 0 }}
}

// IsWall reports whether the clock is one of NewWallClock.
func (c *Clock) IsWall() bool { return c.wall }

// Now is the present in the time of sessions, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, elapsed := c.read()
	if c.wall {
		return wall
	}
	return c.origin.Add(elapsed)
}

// Wall is what the machine's clock says for a moment in the time of sessions.
// The zero time stays what it is.
func (c *Clock) Wall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(c.offset)
}

// Follow looks whether the machine's clock was set, or the machine slept, since
// it was looked at last, and returns by how much; 0 where it was not.
func (c *Clock) Follow() (jump time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, elapsed := c.read()
	if c.wall {
		return 0
	}
	offset := wall.Sub(c.origin.Add(elapsed))
	if jump = offset - c.offset; jump.Abs() < jumpTolerance {
		return 0
	}
	c.offset = offset
	return jump
}

// State is what Resume needs.
func (c *Clock) State() ClockState {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, elapsed := c.read()
	if c.wall {
		return ClockState{Seen: wall}
	}
	return ClockState{Offset: c.offset, Seen: c.origin.Add(elapsed)}
}

// Resume goes on with the time of an earlier process. What the machine's clock
// says has passed since has passed, unless that is less than nothing. It comes
// before any other use of the clock.
func (c *Clock) Resume(from ClockState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, elapsed := c.read()
	if c.wall {
		return
	}
	now := wall.Add(-from.Offset)
	if now.Before(from.Seen) {
		now = from.Seen
	}
	c.origin, c.offset = now.Add(-elapsed), wall.Sub(now)
}
