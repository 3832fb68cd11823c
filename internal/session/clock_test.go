package session_test

import (
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// machine has a clock that can be set, and one that cannot.
type machine struct {
	wall    time.Time
	elapsed time.Duration
}

func (m *machine) read() (time.Time, time.Duration) { return m.wall, m.elapsed }

// pass lets time go on, by which both clocks advance.
func (m *machine) pass(d time.Duration) { m.wall, m.elapsed = m.wall.Add(d), m.elapsed+d }

func TestClockIsTheMachines(t *testing.T) {
	before := time.Now()
	c := session.NewClock()
	now := c.Now()
	if now.Before(before.Add(-time.Second)) || now.After(time.Now().Add(time.Second)) || now.Location() != time.UTC {
		t.Errorf("Now = %v", now)
	}
	if jump := c.Follow(); jump != 0 || !c.Wall(now).Equal(now) {
		t.Errorf("an undisturbed clock has jumped by %v", jump)
	}
}

// TestClockJumps: however the machine's clock is set, what has passed for a
// session is what has passed.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{
		9 * time.Hour, -9 * time.Hour, 3 * time.Second, -3 * time.Second, 56 * 365 * 24 * time.Hour, -56 * 365 * 24 * time.Hour,
	} {
		m := &machine{wall: noon}
		c := session.NewClockOf(m.read)
		m.pass(time.Hour)
		created := c.Now()
		m.wall = m.wall.Add(jump)
		m.pass(time.Minute)
		if got := c.Now().Sub(created); got != time.Minute {
			t.Errorf("after a jump by %v: %v have passed, want a minute", jump, got)
		}
		if got := c.Follow(); got != jump {
			t.Errorf("jump seen: %v, want %v", got, jump)
		}
		if got := c.Follow(); got != 0 {
			t.Errorf("jump by %v seen again: %v", jump, got)
		}
		if got := c.Wall(c.Now()); !got.Equal(m.wall) {
			t.Errorf("after a jump by %v: now is shown as %v, want %v", jump, got, m.wall)
		}
		m.wall = m.wall.Add(-jump)
		if got := c.Follow(); got != -jump || !c.Wall(created).Equal(created) {
			t.Errorf("jump back seen: %v, created shown as %v", got, c.Wall(created))
		}
	}
}

// TestClockKeepsQuiet: small steps are no news, until they add up.
func TestClockKeepsQuiet(t *testing.T) {
	m := &machine{wall: noon}
	c := session.NewClockOf(m.read)
	m.wall = m.wall.Add(1500 * time.Millisecond)
	if got := c.Follow(); got != 0 {
		t.Errorf("a small step seen as a jump by %v", got)
	}
	m.wall = m.wall.Add(1500 * time.Millisecond)
	if got := c.Follow(); got != 3*time.Second {
		t.Errorf("two small steps seen as %v, want 3s", got)
	}
	if zero := c.Wall(time.Time{}); !zero.IsZero() {
		t.Errorf("the zero time is shown as %v", zero)
	}
}

// TestClockResumes: between two processes counts what the machine's clock says,
// but no less than nothing.
func TestClockResumes(t *testing.T) {
	for _, test := range []struct{ jump, down, passes time.Duration }{
		{0, time.Hour, time.Hour},
		{9 * time.Hour, time.Hour, time.Hour},
		{-9 * time.Hour, time.Hour, time.Hour},
		{0, -time.Hour, 0},
		{9 * time.Hour, -time.Hour, 0},
		{-9 * time.Hour, -time.Hour, 0},
	} {
		before := &machine{wall: noon}
		first := session.NewClockOf(before.read)
		before.wall = before.wall.Add(test.jump)
		first.Follow()
		kept := first.State()
		after := &machine{wall: before.wall.Add(test.down), elapsed: 7 * time.Hour}
		second := session.NewClockOf(after.read)
		second.Resume(kept)
		if got := second.Now().Sub(kept.Seen); got != test.passes {
			t.Errorf("jump %v, down %v: %v have passed, want %v", test.jump, test.down, got, test.passes)
		}
		if got := second.Wall(second.Now()); !got.Equal(after.wall) || second.Follow() != 0 {
			t.Errorf("jump %v, down %v: now is shown as %v, want %v", test.jump, test.down, got, after.wall)
		}
	}
}

// TestWallClock: the clock of several machines is the machine's, whatever happens to it,
// and what another process has noted changes nothing.
func TestWallClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := session.NewWallClockOf(func() time.Time { return now })
	c.Resume(session.ClockState{Offset: time.Hour, Seen: now.Add(24 * time.Hour)})
	for _, jump := range []time.Duration{0, time.Hour, -2 * time.Hour} {
		now = now.Add(jump)
		if got := c.Follow(); got != 0 {
			t.Errorf("Follow after a jump by %v: %v", jump, got)
		}
		if got := c.Now(); !got.Equal(now) || !c.Wall(got).Equal(now) {
			t.Errorf("after a jump by %v it is %v, shown as %v, want %v", jump, got, c.Wall(got), now)
		}
	}
	if c.State() != (session.ClockState{Seen: now}) {
		t.Errorf("state %+v", c.State())
	}
}
