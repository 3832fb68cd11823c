package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// openShared begins where others may be at work: nothing that is found can be told to
// be left behind until it is old enough, which settling sees.
func (m *Manager) openShared() error {
	switch {
	case m.shared == nil:
		return errors.New("open manager: the session store cannot be shared")
	case !m.clock.IsWall():
		return errors.New("open manager: the clock of shared sessions has to be the machine's")
	}
	m.warm()
	return nil
}

// settleLoop looks from time to time for what processes that have died left behind.
// Several that do so at once do no harm: each step can be done twice.
func (m *Manager) settleLoop(ctx context.Context) {
	if m.shared == nil {
		return
	}
	s := settling{m: m, since: map[string]time.Time{}}
	// Those that were started together do not look together.
	timer := time.NewTimer(rand.N(m.cfg.SettleInterval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := s.settle(ctx); err != nil && ctx.Err() == nil {
			m.log.Error("sessions and sandboxes not settled", "error", err)
		}
		timer.Reset(m.cfg.SettleInterval)
	}
}

// settling compares records, sandboxes and seats.
type settling struct {
	m *Manager
	// since is when something first looked as if it were left behind.
	since map[string]time.Time
	now   time.Time
	seen  map[string]bool // of this look
}

func (s *settling) settle(ctx context.Context) error {
	m := s.m
	s.now, s.seen = m.clock.Now(), map[string]bool{}
	// The order matters: what has a record then had its seat before, and what runs its
	// sandbox.
	taken, err := s.taken(ctx)
	if err != nil {
		return err
	}
	live, err := m.shared.Living(ctx)
	if err != nil {
		return err
	}
	m.count(live)
	sandboxes, err := m.driver.List(ctx)
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	found := make(map[string]sandbox.Sandbox, len(sandboxes))
	for _, sb := range sandboxes {
		found[sb.ID] = sb
	}
	var errs []error
	for _, rec := range live {
		sb, exists := found[rec.SandboxID]
		delete(found, rec.SandboxID)
		errs = append(errs, s.record(ctx, rec, sb, exists))
	}
	for _, sb := range found {
		errs = append(errs, s.sandbox(ctx, sb))
	}
	errs = append(errs, s.seats(ctx, taken, live))
	for what := range s.since {
		if !s.seen[what] {
			delete(s.since, what)
		}
	}
	return errors.Join(errs...)
}

// age is for how long something has looked as if it were left behind; 0 the first
// time.
func (s *settling) age(what string) time.Duration {
	s.seen[what] = true
	first, ok := s.since[what]
	if !ok {
		s.since[what] = s.now
		return 0
	}
	return max(s.now.Sub(first), 1)
}

// record ends a session that nobody makes, or that has no sandbox any more.
func (s *settling) record(ctx context.Context, rec session.Session, sb sandbox.Sandbox, exists bool) error {
	m := s.m
	e := ending{id: rec.ID}
	switch {
	case rec.State == api.StatePending:
		if m.beingMade(rec, s.now) {
			return nil
		}
		e.fate, e.reason = api.FateFailed, "AgentCube stopped while the session was being created"
		e.still = func(now session.Session) error {
			if now.State != api.StatePending {
				return errNotDue
			}
			return nil
		}
	case !exists:
		// What a driver lists may be a moment old. It has to be missed twice.
		if s.age("record "+rec.ID) == 0 {
			return nil
		}
		if _, err := m.driver.Get(ctx, rec.SandboxID); !errors.Is(err, sandbox.ErrNotFound) {
			return err
		}
		e.fate, e.reason = api.FateHostLost, "its sandbox was gone when it was looked for"
	case sb.Exit != nil:
		e.fate, e.reason = exitFate(*sb.Exit)
	default:
		return nil
	}
	return m.endAndRemove(ctx, rec, e)
}

// sandbox removes a sandbox that has no living session.
func (s *settling) sandbox(ctx context.Context, sb sandbox.Sandbox) error {
	m := s.m
	if m.clock.Wall(s.now).Sub(sb.CreatedAt) < m.cfg.SettleAge {
		return nil
	}
	over, err := s.over(ctx, sb.ID)
	if err != nil || !over {
		return err
	}
	m.log.Warn("sandbox without a session removed", "sandbox", sb.ID)
	m.remove(sb.ID, nil)
	return nil
}

// over reports whether a sandbox has no session, or one that ended so long ago that
// nobody is removing it any more. What cannot be read may be alive.
func (s *settling) over(ctx context.Context, sandboxID string) (bool, error) {
	id, ok := strings.CutPrefix(sandboxID, sandboxPrefix)
	if !ok {
		return true, nil
	}
	rec, err := s.m.cfg.Store.Get(ctx, id)
	switch {
	case errors.Is(err, session.ErrNotFound):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("get session: %w", err)
	}
	return rec.Ended() && s.now.Sub(rec.EndedAt) >= 2*s.m.cfg.DeleteTimeout, nil
}

// taken are the seats that the store counts.
func (s *settling) taken(ctx context.Context) (map[session.Seat]bool, error) {
	const page = 1000
	taken := map[session.Seat]bool{}
	if !s.m.seated() {
		return taken, nil
	}
	for after := (session.Seat{}); ; {
		some, err := s.m.shared.ListSeats(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, seat := range some {
			taken[seat], after = true, seat
		}
		if len(some) < page {
			return taken, nil
		}
	}
}

// seats makes the store count what there is.
func (s *settling) seats(ctx context.Context, taken map[session.Seat]bool, live []session.Session) error {
	if !s.m.seated() {
		return nil
	}
	for _, rec := range live {
		// One that is missed twice was not just being taken, or given back.
		if !taken[seatOf(rec)] && s.age("no seat "+rec.ID) > 0 {
			s.m.awakenSeat(ctx, rec)
			if rec.State == api.StatePaused {
				s.m.restSeat(ctx, rec)
			}
		}
		delete(taken, seatOf(rec))
	}
	for seat := range taken {
		if err := s.seat(ctx, seat); err != nil {
			return err
		}
	}
	return nil
}

// seat gives back one that nobody sits on. Who has just taken it is given the time to
// write the record.
func (s *settling) seat(ctx context.Context, seat session.Seat) error {
	m := s.m
	if s.age("seat "+seat.Owner+" "+seat.ID) < m.cfg.SettleAge {
		return nil
	}
	over, err := s.over(ctx, seat.ID)
	if err != nil || !over {
		return err
	}
	if _, err := m.driver.Get(ctx, seat.ID); !errors.Is(err, sandbox.ErrNotFound) {
		return err
	}
	m.log.Warn("seat without a sandbox given back", "sandbox", seat.ID, "owner", seat.Owner)
	return m.shared.LeaveSeat(ctx, seat)
}

// beingMade reports whether somebody may be making a pending session still.
func (m *Manager) beingMade(rec session.Session, now time.Time) bool {
	m.mu.Lock()
	_, here := m.creations[rec.ID]
	m.mu.Unlock()
	return here || m.shared != nil && now.Sub(rec.CreatedAt) < m.cfg.SettleAge
}
