package gvisor

import (
	"errors"
	"os"
	"testing"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// A sandbox whose state would go over the budget is not paused, and goes on.
func TestSnapshotBudget(t *testing.T) {
	dir := dataDir(t)
	d := New(Config{DataDir: dir, Images: makeImage(t, dir), SnapshotBudget: 1 << 20})
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer closeEmpty(t, d)
	if _, err := d.Create(t.Context(), testSpec(t, "poor")); err != nil {
		t.Fatal(err)
	}
	if err := d.Pause(t.Context(), "poor"); !errors.Is(err, sandbox.ErrDiskFull) {
		t.Errorf("Pause = %v, want ErrDiskFull", err)
	}
	if _, err := d.Checkpoint(t.Context(), "poor", "kept"); !errors.Is(err, sandbox.ErrDiskFull) {
		t.Errorf("Checkpoint = %v, want ErrDiskFull", err)
	}
	health(t, d, "poor")
	if s, err := d.Get(t.Context(), "poor"); err != nil || s.Paused {
		t.Errorf("Get = %+v, %v, want it running", s, err)
	}
	for _, dir := range []string{d.snaps, d.boxDir("poor")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "record.json" {
				t.Errorf("left in %s: %s", dir, e.Name())
			}
		}
	}
}
