package manager

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// SharedStore is what a Store has to be as well where it is shared: limits hold for all
// that share it.
type SharedStore interface {
	session.Once
	session.Rates
	session.Seats
	session.Living
}

// seatOf is the seat of a session's sandbox.
func seatOf(rec session.Session) session.Seat {
	return session.Seat{Owner: rec.Owner, ID: rec.SandboxID}
}

// seatLimits are those that hold for all servers together. A memory budget is one
// machine's.
func (m *Manager) seatLimits() session.SeatLimits {
	return session.SeatLimits{Awake: m.cfg.MaxSandboxes, PerOwner: m.cfg.MaxPerOwner}
}

// seated reports whether seats are taken in the store.
func (m *Manager) seated() bool {
	return m.shared != nil && m.seatLimits() != session.SeatLimits{}
}

// takeSeat reserves room for the sandbox of a session. The error is a 429 when there
// is none.
func (m *Manager) takeSeat(ctx context.Context, rec session.Session) error {
	switch {
	case m.shared == nil:
		return m.slots.take(rec.SandboxID, rec.Owner, rec.MemoryBytes)
	case !m.seated():
		return nil
	}
	return m.sit(ctx, rec, m.seatLimits())
}

// sit takes a seat in the store. It does not stop half way when the client goes away,
// so that what was taken is known.
func (m *Manager) sit(ctx context.Context, rec session.Session, limits session.SeatLimits) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := m.shared.TakeSeat(ctx, seatOf(rec), limits)
	switch {
	case errors.Is(err, session.ErrOwnerSeated):
		return ownerFull(limits.PerOwner).WithCause(err)
	case errors.Is(err, session.ErrNoSeat):
		return countFull(limits.Awake).WithCause(err)
	}
	return err
}

// wakeSeat takes room for a sandbox that is to be resumed; see takeSeat.
func (m *Manager) wakeSeat(ctx context.Context, rec session.Session) error {
	switch {
	case m.shared == nil:
		return m.slots.wake(rec.SandboxID)
	case !m.seated():
		return nil
	}
	return m.sit(ctx, rec, m.seatLimits())
}

// awakenSeat counts a sandbox that has turned out to run, whatever the limits.
func (m *Manager) awakenSeat(ctx context.Context, rec session.Session) {
	if m.shared == nil {
		m.slots.awaken(rec.SandboxID)
	} else if m.seated() {
		m.seatsLag(m.sit(ctx, rec, session.SeatLimits{}))
	}
}

// restSeat gives back the room of a sandbox that is paused.
func (m *Manager) restSeat(ctx context.Context, rec session.Session) {
	if m.shared == nil {
		m.slots.sleep(rec.SandboxID)
		return
	}
	if !m.seated() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	m.seatsLag(m.shared.RestSeat(ctx, seatOf(rec)))
}

// leaveSeat gives back the room of a sandbox that was not made after all.
func (m *Manager) leaveSeat(ctx context.Context, rec session.Session) {
	if m.shared == nil {
		m.slots.release(rec.SandboxID)
		return
	}
	if !m.seated() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	m.seatsLag(m.shared.LeaveSeat(ctx, seatOf(rec)))
}

// vacate gives back the room of a sandbox that is gone. Whose it was, the record knows;
// where that is gone too, settling finds the seat.
func (m *Manager) vacate(ctx context.Context, sandboxID string) {
	if m.shared == nil {
		m.slots.release(sandboxID)
		return
	}
	id, ok := strings.CutPrefix(sandboxID, sandboxPrefix)
	if !ok || !m.seated() {
		return
	}
	rec, err := m.cfg.Store.Get(ctx, id)
	if err == nil {
		err = m.shared.LeaveSeat(ctx, seatOf(rec))
	}
	if !errors.Is(err, session.ErrNotFound) {
		m.seatsLag(err)
	}
}

// seatsLag tells that the store counts a sandbox as it was until the next settling.
func (m *Manager) seatsLag(err error) {
	if err != nil {
		m.log.Warn("seat not changed; settling mends it", "error", err)
	}
}

// permit takes permits of an owner's rate; see rates.take.
func (m *Manager) permit(ctx context.Context, owner string, n int) error {
	if m.shared == nil || m.cfg.MaxCreateRate <= 0 {
		return m.rates.take(owner, n)
	}
	rate := session.Rate{PerSecond: m.cfg.MaxCreateRate, Burst: m.rates.burst()}
	wait, err := m.shared.Take(ctx, owner, n, rate, time.Now())
	if err != nil || wait == 0 {
		return err
	}
	return tooOften(m.cfg.MaxCreateRate, wait.Seconds())
}

// tooOften is the 429 for who has to wait for so many seconds.
func tooOften(perSecond int, seconds float64) error {
	e := httpserve.Overloaded().WithHint("you may have %d sessions and checkpoints made a second", perSecond)
	e.RetryAfter = max(int(math.Ceil(seconds)), 1)
	return e
}
