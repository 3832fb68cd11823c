package gvisor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/sandboxtest"
)

func TestConformance(t *testing.T) {
	shared := dataDir(t)
	image := makeImage(t, shared)
	public := bootstrapKey(shared)
	private, err := auth.LoadOrCreateRSAKey(filepath.Join(shared, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var last *Driver // opened
	sandboxtest.Run(t, sandboxtest.Config{
		New: func(t *testing.T) sandbox.Driver {
			dir := dataDir(t)
			d := openDriver(t, dir, image)
			last = d
			// Made by the first Create in the background otherwise, where it
			// would be taken for something left over.
			if err := d.Prepare(t.Context(), sandboxtest.Spec("test", ""), nil); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				// The test may have opened the directory again since.
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				closeEmpty(t, openDriverIn(t, dir, image))
			})
			return d
		},
		Reopen: func(t *testing.T, d sandbox.Driver) sandbox.Driver {
			if err := d.(*Driver).Close(); err != nil {
				t.Fatal(err)
			}
			again := New(d.(*Driver).cfg)
			if err := again.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { again.Close() })
			last = again
			return again
		},
		Image: "test", MissingImage: "missing", BootstrapKey: public, Bootstrap: private,
		Waiting: func(d sandbox.Driver) int { return len(d.(*Driver).pools.waiting()) },
		Kill: func(_ context.Context, d sandbox.Driver, id string) error {
			b, err := d.(*Driver).find(id)
			if err != nil {
				return err
			}
			return unix.Kill(b.run.place().PID, unix.SIGKILL)
		},
		Residue: func(id string) (left []string) {
			// A pool may be about to get another sandbox.
			for range 100 {
				if left = residue(last, id); len(left) == 0 {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			return left
		},
	})
}

// openDriverIn is openDriver for a cleanup, when the test's context has ended.
func openDriverIn(t *testing.T, dir string, image testImage) *Driver {
	t.Helper()
	d := New(Config{DataDir: dir, Images: image, Standby: 2})
	if err := d.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

// residue looks for a sandbox everywhere on the machine that a driver of these
// tests leaves traces: its own directory, and processes, groups and directories
// that belong neither to a sandbox nor to a pool or the stock.
func residue(d *Driver, id string) []string {
	left, _ := filepath.Glob(filepath.Join(d.dir, id))
	named := map[string]bool{}
	for _, r := range append(d.pools.waiting(), d.stock.waiting()...) {
		named[r.id] = true
	}
	records, _ := filepath.Glob(filepath.Join(d.dir, "*"))
	for _, dir := range records {
		if rec, err := loadRecord(dir); err == nil && rec.At != nil {
			named[rec.At.Run] = true
		}
	}
	runs, _ := filepath.Glob(filepath.Join(d.runs, "*"))
	for _, root := range d.groups.roots { // of either version
		found, _ := filepath.Glob(filepath.Join(root, d.groups.parent, "*"))
		runs = append(runs, found...)
	}
	for _, path := range runs {
		if info, err := os.Stat(path); err == nil && info.IsDir() && !named[filepath.Base(path)] {
			left = append(left, path)
		}
	}
	processes, err := sentriesBelow(d.runs)
	if err != nil {
		return append(left, err.Error())
	}
	for id := range processes {
		if !named[id] {
			left = append(left, "process of "+id)
		}
	}
	return left
}
