package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

var errHeard = errors.New("the server that makes the session was heard")

// beat tells others that share the store that a session is still being made, until the
// returned function is called.
func (m *Manager) beat(ctx context.Context, id string) (silent func()) {
	if m.shared == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(m.cfg.MakerSilence / 8)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := m.cfg.Store.Touch(ctx, id, m.clock.Now()); err != nil && ctx.Err() == nil {
					m.log.Debug("others not told that a session is being made", "session", id, "error", err)
				}
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// silent reports whether nothing was heard any more of the server that makes a session.
func (m *Manager) silent(rec session.Session) bool {
	return m.clock.Now().Sub(rec.LastActivity) > m.cfg.MakerSilence
}

// abandon ends a session whose maker has died, so that its idempotency key is free, and
// has its sandbox removed. A maker that was only slow finds the session ended.
func (m *Manager) abandon(ctx context.Context, rec session.Session) error {
	_, err := m.end(ctx, ending{
		id: rec.ID, fate: api.FateFailed, reason: "the server that was making the session is gone",
		still: func(now session.Session) error {
			if now.State != api.StatePending || !m.silent(now) {
				return errHeard
			}
			return nil
		},
	})
	switch {
	case err == nil:
		m.remove(rec.SandboxID, nil)
	case errors.Is(err, errHeard), errors.Is(err, errAlreadyEnded):
	default:
		return fmt.Errorf("abandon session: %w", err)
	}
	return nil
}
