package manager

import (
	"context"
	"reflect"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// warmPoll is how often the templates are looked at for the pools they want.
const warmPoll = time.Second

// warm tells the driver which sandboxes shall wait ready-made, if that has
// changed since it was told last.
func (m *Manager) warm() {
	var pools []sandbox.Pool
	for _, t := range m.cfg.Templates.List() {
		if t.WarmPoolSize > 0 && m.checkIsolation(t) == nil {
			pools = append(pools, sandbox.Pool{Name: t.Namespace + "/" + t.Name, Spec: m.templateSpec(t), Size: t.WarmPoolSize})
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing || reflect.DeepEqual(pools, m.pools) {
		return
	}
	m.pools = pools
	m.driver.Warm(pools)
}

func (m *Manager) warmLoop(ctx context.Context) {
	tick := time.NewTicker(warmPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.warm()
		}
	}
}
