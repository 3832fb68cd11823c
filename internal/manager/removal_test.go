package manager_test

import (
	"context"
	"testing"

	"github.com/volcano-sh/agentcube/internal/manager"
)

// TestRemovalsAtOnce: as many sandboxes are removed at a time as the settings say, as one
// may take long for which there is nothing to do.
func TestRemovalsAtOnce(t *testing.T) {
	const many = 12 // more than without
	w := newWorld(t)
	removing, end := make(chan struct{}, many+1), make(chan struct{})
	w.hooks.Delete = func(ctx context.Context, _ string) error {
		removing <- struct{}{}
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.config = func(cfg *manager.Config) { cfg.MaxParallelRemovals = many }
	n := w.start()
	ids := make([]string, many+1)
	for i := range ids {
		ids[i] = n.create("alice").SessionID
	}
	for _, id := range ids {
		go n.do(context.WithoutCancel(t.Context()), "alice", "DELETE", "/v1/sessions/"+id, "")
	}
	w.eventually("many are being removed", func() bool { return len(removing) == many })
	close(end)
	w.eventually("all are removed", func() bool { return len(w.host.IDs()) == 0 })
	if len(removing) != many+1 {
		t.Errorf("%d were removed", len(removing))
	}
}
