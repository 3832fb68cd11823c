package gvisor

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// budgeted is a driver that has folders and nothing else.
func budgeted(t *testing.T, budget int64) *Driver {
	t.Helper()
	d := New(Config{DataDir: t.TempDir(), SnapshotBudget: budget})
	for _, dir := range []string{d.dir, d.snaps, d.templates.dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func makeDir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func fill(t *testing.T, file string, size int) {
	t.Helper()
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Error(err)
	}
}

// TestBudgetHoldsInParallel: snapshots that are made at once share the budget.
// Before, each looked at what was there, and all of them went ahead.
func TestBudgetHoldsInParallel(t *testing.T) {
	const each, fit = 1 << 20, 4
	d := budgeted(t, fit*each+each/2)
	var all sync.WaitGroup
	var made, asked atomic.Int32
	over := make(chan struct{})
	for i := range 20 {
		dir := makeDir(t, filepath.Join(d.snaps, partial+itoa(i)))
		all.Go(func() {
			free, err := d.reserveDisk(dir, each)
			switch {
			case errors.Is(err, sandbox.ErrDiskFull):
			case err != nil:
				t.Error(err)
			default:
				defer free()
				made.Add(1)
			}
			if asked.Add(1) == 20 {
				close(over)
			}
			<-over // nobody has finished before all have asked
		})
	}
	all.Wait()
	if made.Load() != fit {
		t.Errorf("%d snapshots were let through, %d fit", made.Load(), fit)
	}
	// What was promised and not used is free again.
	for i := range fit {
		if _, err := d.reserveDisk(filepath.Join(d.snaps, partial+itoa(i)), each); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// TestBudgetCountsOnce: what a snapshot has written of what it was promised
// counts once, also at the moment when it is complete.
func TestBudgetCountsOnce(t *testing.T) {
	const each = 1 << 20
	d := budgeted(t, 2*each+each/2)
	dir := makeDir(t, filepath.Join(d.snaps, partial+"one"))
	free, err := d.reserveDisk(dir, each)
	if err != nil {
		t.Fatal(err)
	}
	second := makeDir(t, filepath.Join(d.snaps, partial+"two"))
	fits := func(when string) {
		t.Helper()
		again, err := d.reserveDisk(second, each)
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		again()
		if _, err := d.reserveDisk(second, 2*each); !errors.Is(err, sandbox.ErrDiskFull) {
			t.Errorf("%s: twice as much: %v, want ErrDiskFull", when, err)
		}
	}
	fits("nothing written")
	fill(t, filepath.Join(dir, "pages"), each/2)
	fits("half of it written")
	fill(t, filepath.Join(dir, "rest"), each/2)
	fits("all of it written")
	if err := os.Rename(dir, filepath.Join(d.snaps, "one")); err != nil {
		t.Fatal(err)
	}
	fits("complete")
	free()
	fits("and over")
}

// TestDiskReserve: some of the disk stays free, whatever was promised before.
func TestDiskReserve(t *testing.T) {
	d := budgeted(t, 0)
	if _, err := d.reserveDisk(makeDir(t, filepath.Join(d.snaps, partial+"all")), 1<<62); !errors.Is(err, sandbox.ErrDiskFull) {
		t.Errorf("all of the disk: %v, want ErrDiskFull", err)
	}
}
