package gvisor

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
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
	wantCPULimit(t, d, "poor")
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

// A snapshot that is damaged, or that another engine made, is refused as a
// whole, and can be removed.
func TestBadSnapshots(t *testing.T) {
	dir := dataDir(t)
	d := openDriver(t, dir, makeImage(t, dir))
	defer closeEmpty(t, d)
	if _, err := d.Create(t.Context(), testSpec(t, "of")); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"damaged": func(t *testing.T, dir string) { spoilFile(t, filepath.Join(dir, "pages.img"), nil) },
		"cut": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "pages.img"), 4096); err != nil {
				t.Fatal(err)
			}
		},
		"foreign": func(t *testing.T, dir string) { spoilFile(t, filepath.Join(dir, metaFile), []byte("format")) },
		"no-json": func(t *testing.T, dir string) { spoilFile(t, filepath.Join(dir, metaFile), []byte(`{"version"`)) },
		"missing": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "checkpoint.img")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.Checkpoint(t.Context(), "of", name); err != nil {
				t.Fatal(err)
			}
			spoil(t, d.snapshotDir(name))
			spec := testSpec(t, "from-"+name)
			spec.Snapshot = name
			if _, err := d.Create(t.Context(), spec); !errors.Is(err, sandbox.ErrBadSnapshot) {
				t.Errorf("Create = %v, want ErrBadSnapshot", err)
			}
			if err := d.DeleteSnapshot(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	health(t, d, "of")
	wantCPULimit(t, d, "of")
}

// wantCPULimit checks that a sandbox is held to its share of the processors,
// which is lifted while its state is saved.
func wantCPULimit(t *testing.T, d *Driver, id string) {
	t.Helper()
	spec, err := withDefaults(testSpec(t, id))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range d.groups.values(spec.Resources) {
		if v.controller != "cpu" || d.groups.roots["cpu"] == "" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(d.groups.roots["cpu"], d.groups.parent, placeOf(t, d, id).Run, v.file))
		if err != nil || strings.TrimSpace(string(got)) != v.value {
			t.Errorf("%s = %q, %v; want %q", v.file, got, err, v.value)
		}
	}
}

// spoilFile changes one byte: the first of what, or one in the middle.
func spoilFile(t *testing.T, path string, what []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := len(data) / 2
	if what != nil {
		if at = bytes.Index(data, what); at < 0 {
			t.Fatalf("%s does not hold %q", path, what)
		}
	}
	data[at] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
