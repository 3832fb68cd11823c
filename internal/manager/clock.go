package manager

import "context"

// resumeClock makes the time of sessions go on where an earlier process left it.
func (m *Manager) resumeClock(ctx context.Context) error {
	state, err := m.cfg.Store.LoadClock(ctx)
	if err != nil {
		return err
	}
	m.clock.Resume(state)
	m.saveClock(ctx)
	return nil
}

// followClock notices that the machine's clock was set. No session ends of that:
// what is to be noted is only how the two clocks differ, for those who are shown
// times, and for the next process.
func (m *Manager) followClock(ctx context.Context) {
	jump := m.clock.Follow()
	if jump == 0 {
		return
	}
	m.log.Warn("the machine's clock was set, or it slept; sessions keep the time that they had left", "by", jump)
	m.saveClock(ctx)
}

// saveClock notes the time for the next process.
func (m *Manager) saveClock(ctx context.Context) {
	if m.cfg.Shared { // what one machine notes is none of the others' business
		return
	}
	if err := m.cfg.Store.SaveClock(ctx, m.clock.State()); err != nil && ctx.Err() == nil {
		m.log.Error("time not noted", "error", err)
	}
}
