package manager

import (
	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// Usage is what a Manager has in its charge at one moment. Limits are 0 where there
// is none.
type Usage struct {
	// Counted: the sessions, and what of them follows, have been counted. Of shared
	// ones they are those of all servers.
	Counted bool
	// Sessions by their state: those that are being made, run, and are paused.
	Pending, Running, Paused int
	// Sandboxes that are not paused, and the most that there may be.
	Sandboxes, MaxSandboxes int
	// MemoryBytes is the sum of their memory limits, and the most that it may be.
	MemoryBytes, MaxMemoryBytes int64
	// Waiting are the starts of sandboxes that wait for their turn.
	Waiting int
}

// Usage says what is there now, or, of shared sessions, what was at the last settling.
// It does no I/O.
func (m *Manager) Usage() Usage {
	m.starts.mu.Lock()
	waiting := m.starts.waiting
	m.starts.mu.Unlock()
	if m.shared != nil {
		var u Usage
		if last := m.lastCount.Load(); last != nil {
			u = *last
		}
		u.MaxSandboxes, u.Waiting = m.cfg.MaxSandboxes, waiting
		return u
	}
	m.mu.Lock()
	pending := len(m.creations)
	m.mu.Unlock()
	s := m.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{
		// Slots are taken a moment before a creation is known, and given back a moment after.
		Counted: true, Pending: pending, Running: max(s.awake-pending, 0), Paused: len(s.taken) - s.awake,
		Sandboxes: s.awake, MaxSandboxes: s.maxCount, MemoryBytes: s.memory, MaxMemoryBytes: s.maxMemory, Waiting: waiting,
	}
}

// count notes the sessions that have not ended, of all servers.
func (m *Manager) count(live []session.Session) {
	u := &Usage{Counted: true}
	for _, rec := range live {
		switch rec.State {
		case api.StatePending:
			u.Pending++
		case api.StateRunning:
			u.Running++
		case api.StatePaused:
			u.Paused++
			continue
		}
		u.Sandboxes++
		u.MemoryBytes += rec.MemoryBytes
	}
	m.lastCount.Store(u)
}
