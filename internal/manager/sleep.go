package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// errAwake: the session is to be paused because it idles, but does not.
var errAwake = errors.New("session is in use")

// Pause puts a session to sleep: its memory and files go to disk, its
// connections break off, and it has no idle time-out until it is woken. The
// errors are those of Delete, and a 409 while it is being created.
func (m *Manager) Pause(ctx context.Context, who auth.Principal, id string) (session.Session, error) {
	if _, err := m.owned(ctx, who, id, auth.VerbUse); err != nil {
		return session.Session{}, err
	}
	return m.transit(ctx, id, pausing(session.PausedByOwner))
}

// Resume wakes a session. When there is no room for it the error is a 429.
func (m *Manager) Resume(ctx context.Context, who auth.Principal, id string) (session.Session, error) {
	if _, err := m.owned(ctx, who, id, auth.VerbUse); err != nil {
		return session.Session{}, err
	}
	return m.transit(ctx, id, resuming)
}

// Wake is Resume for the Router, which knows already that the caller may use
// the session. All who wait wait for the same resume, and it goes on when they
// lose patience.
func (m *Manager) Wake(ctx context.Context, id string) error {
	_, err := m.transit(ctx, id, resuming)
	return err
}

// change is a way from one state to another.
type change struct {
	name string
	run  func(m *Manager, ctx context.Context, id string) (session.Session, error)
}

func pausing(by session.PausedBy) change {
	return change{"pause by " + string(by), func(m *Manager, ctx context.Context, id string) (session.Session, error) {
		return m.pause(ctx, id, by)
	}}
}

var resuming = change{"resume", (*Manager).resume}

// transition is a session on its way. It does not depend on who waits for it.
type transition struct {
	name   string
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when result and err are set

	result session.Session
	err    error
}

// transit brings a session from one state to another. A session goes one way at
// a time; who asks for the same one waits for the same one.
func (m *Manager) transit(ctx context.Context, id string, c change) (session.Session, error) {
	for {
		t, same, err := m.join(ctx, id, c)
		if err != nil {
			return session.Session{}, err
		}
		select {
		case <-t.done:
		case <-ctx.Done():
			return session.Session{}, ctx.Err()
		}
		if same {
			return t.result, t.err
		}
	}
}

// join finds the transition of a session, or begins one.
func (m *Manager) join(asked context.Context, id string, c change) (t *transition, same bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.transitions[id]; t != nil {
		return t, t.name == c.name, nil
	}
	if m.closing {
		return nil, false, unavailable()
	}
	ctx, cancel := context.WithCancelCause(trace.Carry(audit.WithCause(m.base, audit.CauseOf(asked)), asked))
	t = &transition{name: c.name, cancel: cancel, done: make(chan struct{})}
	m.transitions[id] = t
	m.work.Go(func() {
		defer cancel(nil)
		t.result, t.err = m.travel(ctx, id, c)
		m.mu.Lock()
		delete(m.transitions, id)
		m.mu.Unlock()
		close(t.done)
	})
	return t, true, nil
}

// travel brings a session from one state to another, unless it ends on the way.
func (m *Manager) travel(ctx context.Context, id string, c change) (session.Session, error) {
	timed, stop := context.WithTimeout(ctx, m.cfg.CreateTimeout)
	defer stop()
	rec, err := c.run(m, timed, id)
	if err == nil || !errors.Is(context.Cause(ctx), errAlreadyEnded) {
		return rec, err
	}
	ctx, cancel := context.WithTimeout(m.attempts, storeTimeout)
	defer cancel()
	if now, getErr := m.made(ctx, id); getErr != nil {
		return now, getErr
	}
	return rec, err
}

// interrupt lets go of a session that has ended on its way from one state to
// another.
func (m *Manager) interrupt(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.transitions[id]; t != nil {
		t.cancel(errAlreadyEnded)
	}
}

// made finds the record of a session that has been made and not ended.
func (m *Manager) made(ctx context.Context, id string) (session.Session, error) {
	rec, err := m.cfg.Store.Get(ctx, id)
	switch {
	case errors.Is(err, session.ErrNotFound):
		return rec, unknownSession(id)
	case err != nil:
		return rec, fmt.Errorf("get session: %w", err)
	case rec.Ended():
		return rec, m.ended(rec)
	case rec.State == api.StatePending:
		return rec, notReady()
	}
	return rec, nil
}

func (m *Manager) pause(ctx context.Context, id string, by session.PausedBy) (session.Session, error) {
	idling := by == session.PausedByIdling
	rec, err := m.made(ctx, id)
	if err != nil {
		return session.Session{}, err
	}
	leave, err := m.saves.enter(ctx, rec.Owner)
	if err != nil {
		return session.Session{}, err
	}
	defer leave()
	// From here on no request begins that would be cut off.
	release, ok := m.cfg.HoldRequests(id, idling)
	if !ok {
		return session.Session{}, errAwake
	}
	defer release()
	rec, err = m.made(ctx, id)
	switch {
	case err != nil:
		return session.Session{}, err
	case idling && !rec.PauseDue(m.clock.Now()):
		return session.Session{}, errAwake
	case rec.State == api.StateRunning:
		m.attest(ctx, rec)
		if err := m.driver.Pause(ctx, rec.SandboxID); err != nil {
			return session.Session{}, m.unchanged(rec, "pause", err)
		}
	}
	return m.recordPaused(ctx, rec, by)
}

// recordPaused records what the driver has acknowledged.
func (m *Manager) recordPaused(ctx context.Context, rec session.Session, by session.PausedBy) (session.Session, error) {
	rec, err := m.cfg.Store.Update(ctx, rec.ID, func(s *session.Session) error {
		switch {
		case s.Ended():
			return m.ended(*s)
		case s.State == api.StatePaused && (s.PausedBy == by || s.PausedBy == session.PausedByOwner):
			return nil
		case s.State != api.StatePaused:
			s.PausedAt = m.clock.Now()
		}
		s.State, s.PausedBy = api.StatePaused, by
		return nil
	})
	if err != nil {
		return session.Session{}, fmt.Errorf("record pause: %w", err)
	}
	m.restSeat(ctx, rec)
	m.audit(ctx, record.SessionPaused, rec)
	m.cfg.SessionChanged(rec)
	m.log.Info("session paused", "session", rec.ID, "by", string(by))
	return rec, nil
}

func (m *Manager) resume(ctx context.Context, id string) (session.Session, error) {
	rec, err := m.made(ctx, id)
	if err != nil {
		return session.Session{}, err
	}
	if rec.State == api.StateRunning {
		// The record may lag behind, if its last change did not succeed.
		sb, err := m.cfg.Driver.Get(ctx, rec.SandboxID)
		if err != nil || !sb.Paused {
			return rec, nil
		}
		m.restSeat(ctx, rec)
	}
	began := time.Now()
	// Being asked for is not idling, however long the way takes.
	if err := m.cfg.Store.Touch(ctx, id, m.clock.Now()); err != nil {
		return session.Session{}, fmt.Errorf("touch session: %w", err)
	}
	if err := m.wakeSeat(ctx, rec); err != nil {
		return session.Session{}, err
	}
	leave, err := m.starts.enter(ctx, rec.Owner)
	if err != nil {
		m.restSeat(ctx, rec)
		return session.Session{}, err
	}
	err = m.driver.Resume(ctx, rec.SandboxID)
	leave()
	if err != nil {
		m.restSeat(ctx, rec)
		return session.Session{}, m.unchanged(rec, "resume", err)
	}
	rec, err = m.recordRunning(ctx, rec)
	if err == nil {
		m.log.Info("session resumed", "session", rec.ID, "duration", time.Since(began))
	}
	return rec, err
}

func (m *Manager) recordRunning(ctx context.Context, rec session.Session) (session.Session, error) {
	// First the clock: a session that woke with the old one would be overdue.
	if err := m.cfg.Store.Touch(ctx, rec.ID, m.clock.Now()); err != nil {
		return session.Session{}, fmt.Errorf("touch session: %w", err)
	}
	rec, err := m.cfg.Store.Update(ctx, rec.ID, func(s *session.Session) error {
		if s.Ended() {
			return m.ended(*s)
		}
		s.State, s.PausedAt, s.PausedBy, s.ResumedAt = api.StateRunning, time.Time{}, "", m.clock.Now()
		return nil
	})
	if err != nil {
		return session.Session{}, fmt.Errorf("record resume: %w", err)
	}
	m.audit(ctx, record.SessionResumed, rec)
	m.cfg.SessionChanged(rec)
	return rec, nil
}

// unchanged finds the answer for a pause or resume that failed. What became of
// the sandbox the driver knows, as the call may have been given up when it was
// all but done; the record follows.
func (m *Manager) unchanged(rec session.Session, what string, err error) error {
	ctx, cancel := context.WithTimeout(m.attempts, storeTimeout)
	defer cancel()
	m.log.Warn("session not changed", "session", rec.ID, "change", what, "error", err)
	now, getErr := m.cfg.Store.Get(ctx, rec.ID)
	if getErr == nil && now.Ended() {
		return m.ended(now).WithCause(err)
	}
	sb, getErr := m.cfg.Driver.Get(ctx, rec.SandboxID)
	switch {
	case errors.Is(getErr, sandbox.ErrNotFound):
		m.remove(rec.SandboxID, &ending{id: rec.ID, fate: api.FateHostLost, reason: "its sandbox was gone when it was looked for"})
	case getErr == nil && sb.Exit == nil:
		if settleErr := m.follow(ctx, now, sb.Paused); settleErr != nil {
			m.log.Error("session not settled", "session", rec.ID, "error", settleErr)
		}
	}
	if errors.Is(err, sandbox.ErrNotFound) || errors.Is(err, sandbox.ErrNotRunning) {
		return api.Errorf(http.StatusServiceUnavailable, api.CodeSandboxUnreachable, "the sandbox has ended").WithCause(err)
	}
	if errors.Is(context.Cause(m.base), context.Canceled) {
		return unavailable()
	}
	return fmt.Errorf("%s sandbox: %w", what, err)
}

// follow makes the record of a living session say what its sandbox does.
func (m *Manager) follow(ctx context.Context, rec session.Session, paused bool) error {
	var err error
	switch {
	case paused && rec.State == api.StateRunning:
		// Nobody was told that it is paused: nobody relies on it.
		_, err = m.recordPaused(ctx, rec, session.PausedByIdling)
	case !paused && rec.State == api.StatePaused:
		m.awakenSeat(ctx, rec)
		_, err = m.recordRunning(ctx, rec)
	}
	return err
}
