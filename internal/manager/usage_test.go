package manager_test

import (
	"testing"

	"github.com/volcano-sh/agentcube/internal/manager"
)

// TestUsageOfAll: each of several managers knows, from a while after its start, what all
// of them have made.
func TestUsageOfAll(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	w.set(func(cfg *manager.Config) { cfg.MaxSandboxes = 100 })
	a, b := w.start(), w.start()
	id := a.create().SessionID
	a.create()
	b.create()
	a.must(id, "pause")
	want := manager.Usage{Counted: true, Running: 2, Paused: 1, Sandboxes: 2, MaxSandboxes: 100, MemoryBytes: 2 << 30}
	for _, n := range []*node{a, b} {
		w.eventually("what there is has been counted", func() bool { return n.Usage() == want })
	}
}
