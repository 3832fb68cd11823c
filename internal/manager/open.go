package manager

import (
	"context"
	"fmt"
	"strconv"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// Open settles what an earlier process left behind, as the package comment
// tells, and counts what lives on. It comes before Run and before requests are
// served. Sandboxes that must go are removed in the background.
func (m *Manager) Open(ctx context.Context) error {
	if m.cfg.Shared {
		return m.openShared()
	}
	if err := m.resumeClock(ctx); err != nil {
		return fmt.Errorf("open manager: %w", err)
	}
	sandboxes, err := m.cfg.Driver.List(ctx)
	if err != nil {
		return fmt.Errorf("open manager: list sandboxes: %w", err)
	}
	live, err := m.live(ctx)
	if err != nil {
		return fmt.Errorf("open manager: %w", err)
	}
	found := make(map[string]sandbox.Sandbox, len(sandboxes))
	for _, sb := range sandboxes {
		found[sb.ID] = sb
		memory, _ := strconv.ParseInt(sb.Labels[labelMemory], 10, 64)
		m.slots.adopt(sb.ID, sb.Labels[labelOwner], memory, sb.Paused)
	}
	adopted := 0
	for _, rec := range live {
		sb, exists := found[rec.SandboxID]
		ok, err := m.settle(ctx, rec, sb, exists)
		if err != nil {
			return fmt.Errorf("open manager: %w", err)
		}
		if ok {
			adopted++
			delete(found, rec.SandboxID)
		}
	}
	for id := range found {
		m.remove(id, nil)
	}
	if err := m.sweep(ctx); err != nil {
		return fmt.Errorf("open manager: %w", err)
	}
	m.warm()
	m.log.Info("sessions settled", "adopted", adopted, "ended", len(live)-adopted, "sandboxesRemoved", len(found))
	return nil
}

// settle decides about one session that had not ended; true when it lives on.
func (m *Manager) settle(ctx context.Context, rec session.Session, sb sandbox.Sandbox, exists bool) (bool, error) {
	e := ending{id: rec.ID}
	switch {
	case rec.State == api.StatePending:
		e.fate, e.reason = api.FateFailed, "AgentCube stopped while the session was being created"
	case !exists:
		e.fate, e.reason = api.FateHostLost, "its sandbox was gone when AgentCube came back"
	case sb.Exit != nil:
		e.fate, e.reason = exitFate(*sb.Exit)
	default:
		// Nobody could reach the session while no process was there: that time
		// is not its owner's idleness.
		if err := m.cfg.Store.Touch(ctx, rec.ID, m.clock.Now()); err != nil {
			return true, err
		}
		// Whether it runs, the driver knows better than the record.
		return true, m.follow(ctx, rec, sb.Paused)
	}
	_, err := m.end(ctx, e)
	return false, err
}

// live lists the sessions that have not ended.
func (m *Manager) live(ctx context.Context) ([]session.Session, error) {
	q := session.Query{States: liveStates(), Limit: 1000}
	var all []session.Session
	for {
		page, next, err := m.cfg.Store.List(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		all = append(all, page...)
		if next == "" {
			return all, nil
		}
		q.Cursor = next
	}
}

func liveStates() []api.State {
	return []api.State{api.StatePending, api.StateRunning, api.StatePaused}
}
