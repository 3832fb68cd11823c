package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/session"
)

var errAlreadyEnded = errors.New("session has already ended")

// ending says how a session ends.
type ending struct {
	id     string
	fate   api.Fate
	reason string
	// still, when set, is asked with the record as it is now; an error keeps
	// the session.
	still func(session.Session) error
}

// end marks a session as ended; of several that try, one succeeds and the
// others get errAlreadyEnded.
func (m *Manager) end(ctx context.Context, e ending) (session.Session, error) {
	running := false
	rec, err := m.cfg.Store.Update(ctx, e.id, func(s *session.Session) error {
		running = s.State == api.StateRunning
		if s.Ended() {
			return errAlreadyEnded
		}
		if e.still != nil {
			if err := e.still(*s); err != nil {
				return err
			}
		}
		if s.State == api.StatePending {
			// A session that never was does not keep the key from being used again.
			s.IdempotencyKey, s.RequestDigest = "", ""
		}
		s.State, s.Fate, s.Reason, s.EndedAt = api.StateEnded, e.fate, e.reason, m.clock.Now()
		return nil
	})
	if err != nil {
		return session.Session{}, fmt.Errorf("end session: %w", err)
	}
	m.cfg.SessionChanged(rec)
	m.auditEnded(ctx, rec, running)
	m.interrupt(rec.ID)
	m.log.Info("session ended", "session", rec.ID, "fate", string(rec.Fate), "reason", rec.Reason)
	return rec, nil
}

// Delete ends a session at the wish of its owner, or of an administrator, and
// returns its last record once its sandbox is gone; should that take long, it
// goes on in the background. The error is a 404 when there is no such session or
// it is somebody else's, a 410 when it has ended already.
func (m *Manager) Delete(ctx context.Context, who auth.Principal, id string) (session.Session, error) {
	rec, err := m.seen(ctx, who, id)
	if err != nil {
		return session.Session{}, err
	}
	if rec.Ended() {
		return session.Session{}, m.ended(rec)
	}
	// From here on the client's patience does not matter.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	by := "its owner"
	if !who.Owns(rec.Owner) {
		by = "an administrator"
	}
	rec, err = m.end(ctx, ending{id: id, fate: api.FateDeleted, reason: "deleted by " + by})
	if errors.Is(err, errAlreadyEnded) {
		if rec, err = m.cfg.Store.Get(ctx, id); err == nil {
			return session.Session{}, m.ended(rec)
		}
	}
	if err != nil {
		return session.Session{}, err
	}
	m.mu.Lock()
	c := m.creations[id]
	m.mu.Unlock()
	if c != nil {
		c.cancel(errDeleted)
		select {
		case <-c.done: // it has removed its sandbox
		case <-ctx.Done():
		}
		return rec, nil
	}
	select {
	case <-m.remove(rec.SandboxID, nil).tried:
	case <-ctx.Done():
	}
	return rec, nil
}

// owned finds a session that is who's own, to do with it as its owner does, who needs
// leave for the verb.
func (m *Manager) owned(ctx context.Context, who auth.Principal, id string, verb auth.Verb) (session.Session, error) {
	rec, err := m.seen(ctx, who, id)
	if err == nil && !who.Owns(rec.Owner) {
		return session.Session{}, unknownSession(id).WithHint(auth.SeenOnly)
	}
	if err == nil {
		err = m.cfg.Authorizer.Authorize(ctx, who, verb, auth.TemplateRef{Kind: rec.Kind, Namespace: rec.Namespace, Name: rec.Name})
	}
	return rec, err
}

// seen finds a session that who may know of and end. To others it does not exist.
func (m *Manager) seen(ctx context.Context, who auth.Principal, id string) (session.Session, error) {
	rec, err := m.cfg.Store.Get(ctx, id)
	if errors.Is(err, session.ErrNotFound) || (err == nil && !who.Sees(rec.Owner)) {
		return session.Session{}, unknownSession(id)
	}
	if err != nil {
		return session.Session{}, fmt.Errorf("get session: %w", err)
	}
	return rec, nil
}

// removal is the removal of one sandbox, tried until it succeeds.
type removal struct {
	tried chan struct{} // closed after the first attempt
}

// remove takes a sandbox away, after it has marked the session as ended when
// end is not nil. It returns at once; attempts go on, with growing pauses,
// until one succeeds or the Manager is closed.
func (m *Manager) remove(sandboxID string, end *ending) *removal {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.removals[sandboxID]; ok && end == nil {
		return r
	}
	r := &removal{tried: make(chan struct{})}
	m.removals[sandboxID] = r
	m.work.Go(func() { m.removeUntilGone(sandboxID, end, r) })
	return r
}

const (
	firstRetry = 100 * time.Millisecond
	maxRetry   = 30 * time.Second
)

func (m *Manager) removeUntilGone(sandboxID string, end *ending, r *removal) {
	defer func() {
		m.mu.Lock()
		if m.removals[sandboxID] == r {
			delete(m.removals, sandboxID)
		}
		m.mu.Unlock()
	}()
	first := sync.OnceFunc(func() { close(r.tried) })
	for pause := firstRetry; ; pause = min(2*pause, maxRetry) {
		err := m.removeOnce(sandboxID, end)
		first()
		if err == nil {
			return
		}
		m.log.Error("sandbox not removed", "sandbox", sandboxID, "retryIn", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-m.base.Done():
			return // the next Open finds the sandbox
		}
	}
}

func (m *Manager) removeOnce(sandboxID string, end *ending) error {
	select {
	case m.tries <- struct{}{}:
		defer func() { <-m.tries }()
	case <-m.attempts.Done():
		return m.attempts.Err()
	}
	ctx, cancel := context.WithTimeout(m.attempts, m.cfg.DeleteTimeout)
	defer cancel()
	var endErr error
	if end != nil {
		_, endErr = m.end(ctx, *end)
		if errors.Is(endErr, errAlreadyEnded) || errors.Is(endErr, session.ErrNotFound) {
			endErr = nil
		}
	}
	m.sealEnded(ctx, sandboxID)
	if err := m.cfg.Driver.Delete(ctx, sandboxID); err != nil {
		return errors.Join(endErr, err)
	}
	m.vacate(ctx, sandboxID)
	return endErr
}

// endAll ends every session that is not paused, for a shutdown, and waits for
// what is being removed. What is paused costs no memory and can wait.
func (m *Manager) endAll(ctx context.Context) error {
	live, err := m.live(ctx)
	if err != nil {
		return err
	}
	for _, rec := range live {
		if rec.State == api.StatePaused {
			continue
		}
		m.remove(rec.SandboxID, &ending{id: rec.ID, fate: api.FateHostLost, reason: "AgentCube was stopped"})
	}
	m.mu.Lock()
	removals := slices.Collect(maps.Values(m.removals))
	m.mu.Unlock()
	for _, r := range removals {
		select {
		case <-r.tried:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if n := m.slots.running(); n > 0 {
		return fmt.Errorf("%d sandboxes could not be removed; the next start tries again", n)
	}
	return nil
}
