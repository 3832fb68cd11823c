package manager

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// reapBatch is how many overdue sessions one look ends.
const reapBatch = 256

var errNotDue = errors.New("session was used meanwhile")

// reap ends the sessions whose time is over.
func (m *Manager) reap(ctx context.Context) {
	m.mu.Lock()
	creating := max(len(m.creations), m.left)
	m.mu.Unlock()
	// Sessions in creation may be among the due ones and are left alone;
	// asking for more keeps them from hiding others.
	now := m.clock.Now()
	due, err := m.cfg.Store.Due(ctx, now, reapBatch+creating)
	if err != nil && ctx.Err() == nil {
		m.log.Error("overdue sessions not listed", "error", err)
	}
	m.left = 0
	for _, rec := range due {
		if ctx.Err() != nil {
			return
		}
		if rec.State == api.StatePending && m.beingMade(rec, now) {
			m.left++
			continue
		}
		m.reapOne(ctx, rec, now)
	}
}

func (m *Manager) reapOne(ctx context.Context, rec session.Session, now time.Time) {
	e := ending{id: rec.ID, fate: api.FateIdle, reason: "no request for " + rec.IdleTimeout.String(),
		still: func(s session.Session) error {
			if s.Deadline().After(now) {
				return errNotDue
			}
			return nil
		}}
	switch {
	case rec.State == api.StatePending:
		e.fate, e.reason = api.FateFailed, "the session was never made"
	case !rec.ExpiresAt.After(now):
		e.fate, e.reason = api.FateExpired, "its longest life was over"
	}
	if err := m.endAndRemove(ctx, rec, e); err != nil && ctx.Err() == nil {
		m.log.Error("overdue session not ended", "session", rec.ID, "error", err)
	}
}

// endAndRemove ends a session, unless it has ended or is not to be any more, and then
// removes its sandbox.
func (m *Manager) endAndRemove(ctx context.Context, rec session.Session, e ending) error {
	_, err := m.end(ctx, e)
	if errors.Is(err, errNotDue) || errors.Is(err, errAlreadyEnded) || errors.Is(err, session.ErrNotFound) {
		return nil
	}
	if err == nil {
		m.remove(rec.SandboxID, nil)
	}
	return err
}

// watchExits ends the sessions whose sandbox ended by itself.
func (m *Manager) watchExits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case exit, ok := <-m.cfg.Driver.Exits():
			if !ok {
				return
			}
			m.sandboxExited(ctx, exit)
		}
	}
}

func (m *Manager) sandboxExited(ctx context.Context, exit sandbox.Exit) {
	id, ok := strings.CutPrefix(exit.ID, sandboxPrefix)
	if !ok {
		m.remove(exit.ID, nil)
		return
	}
	if m.caredFor(ctx, id) {
		return
	}
	m.log.Warn("sandbox exited", "sandbox", exit.ID, "reason", string(exit.Reason), "detail", exit.Detail)
	fate, reason := exitFate(exit)
	m.remove(exit.ID, &ending{id: id, fate: fate, reason: reason})
}

// caredFor reports whether another server sees to a sandbox that has ended: the one that
// is making its session, and tells its client why, or the one that has ended it.
func (m *Manager) caredFor(ctx context.Context, id string) bool {
	if m.shared == nil {
		return false
	}
	m.mu.Lock()
	_, here := m.creations[id]
	m.mu.Unlock()
	if here {
		return false
	}
	rec, err := m.cfg.Store.Get(ctx, id)
	return err == nil && (rec.Ended() || rec.State == api.StatePending && m.beingMade(rec, m.clock.Now()))
}

// exitFate is the fate of a session whose sandbox ended, and the reason: the
// driver's sentence, where it has one.
func exitFate(exit sandbox.Exit) (fate api.Fate, reason string) {
	switch exit.Reason {
	case sandbox.ExitOutOfMemory:
		fate, reason = api.FateOutOfMemory, "the sandbox went over its memory limit"
	case sandbox.ExitLost:
		fate, reason = api.FateHostLost, "the sandbox was gone when it was looked for"
	default:
		fate, reason = api.FateFailed, "the sandbox ended by itself"
	}
	if exit.Detail != "" {
		reason = exit.Detail
	}
	return fate, reason
}

func (m *Manager) purgeLoop(ctx context.Context) {
	tick := time.NewTicker(min(time.Minute, m.cfg.Retention))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n, err := m.cfg.Store.Purge(ctx, m.clock.Now().Add(-m.cfg.Retention))
			if err != nil && ctx.Err() == nil {
				m.log.Error("old sessions not purged", "error", err)
			} else if n > 0 {
				m.log.Info("old sessions purged", "count", n)
			}
			m.expireCheckpoints(ctx)
			m.saveClock(ctx)
			if err := m.sweep(ctx); err != nil && ctx.Err() == nil {
				m.log.Error("snapshots not swept", "error", err)
			}
		}
	}
}
