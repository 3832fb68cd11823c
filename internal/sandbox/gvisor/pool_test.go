package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// TestPoolGivesUp: sandboxes that wait go when memory is short for those that are
// used, and until then they have the usual part of the processors.
func TestPoolGivesUp(t *testing.T) {
	dir := dataDir(t)
	d := openDriver(t, dir, makeImage(t, dir))
	defer closeEmpty(t, d)
	spec := testSpec(t, "pool")
	d.Warm([]sandbox.Pool{{Name: "small", Spec: spec, Size: 2}})
	if err := d.Prepare(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	waiting := d.pools.waiting()
	if len(waiting) != 2 {
		t.Fatalf("%d sandboxes wait, want 2", len(waiting))
	}
	file, usual := "cpu.shares", "1024"
	if d.groups.v2 {
		file, usual = "cpu.weight", "100"
	}
	for _, r := range waiting {
		got, err := os.ReadFile(filepath.Join(d.groups.roots["cpu"], d.groups.parent, r.id, file))
		if err != nil || strings.TrimSpace(string(got)) != usual {
			t.Errorf("%s of a sandbox that waits = %q, %v; want %s", file, got, err, usual)
		}
	}
	if d.pools.giveUp() {
		t.Error("a pool gave up a sandbox though there is memory")
	}
	d.cancel()             // nobody fills them any more
	d.cfg.MemoryBudget = 1 // all of it is in use
	for left := 1; left >= 0; left-- {
		if !d.pools.giveUp() || len(d.pools.waiting()) != left {
			t.Errorf("%d sandboxes wait, want %d", len(d.pools.waiting()), left)
		}
	}
	if d.pools.giveUp() {
		t.Error("an empty pool gave up a sandbox")
	}
}
