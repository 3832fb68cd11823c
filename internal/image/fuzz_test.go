package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack applies two hostile layers and checks that nothing beside the tree
// changes and that every refusal has a code.
func FuzzUnpack(f *testing.F) {
	f.Add(layerTar(f, dir("d"), file("d/a", "1"), symlink("l", "d")), layerTar(f, file("l/b", "2"), ent{name: "d/.wh.a"}))
	f.Add(layerTar(f, symlink("d", "..")), layerTar(f, file("d/canary", "x"), ent{name: "d/.wh.canary"}))
	f.Add(layerTar(f, symlink("a", "/"), hardlink("b", "a")), layerTar(f, dir("b"), ent{name: "b/.wh..wh..opq"}))
	f.Add(layerTar(f, file("a", "1"), hardlink("b", "a")), layerTar(f, ent{name: ".wh..wh..opq"}, file("../canary", "x")))
	f.Add(patched(layerTar(f, file("x", "")), func(h []byte) { h[156] = 'S' }), []byte{})
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		base := t.TempDir()
		canary, tree := filepath.Join(base, "canary"), filepath.Join(base, "tree")
		if err := os.WriteFile(canary, []byte("safe"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(tree)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		u := newUnpacker(root, Limits{Bytes: 1 << 20, FileBytes: 1 << 20, Entries: 100, PathBytes: 200, PathDepth: 10}.orDefault())
		for _, layer := range [][]byte{lower, upper} {
			if err = u.apply(t.Context(), bytes.NewReader(layer)); err != nil {
				break
			}
		}
		if err != nil && CodeOf(err) == "" {
			t.Errorf("error without a code: %v", err)
		}
		if err == nil {
			if err = furnish(root, &Agent{Path: ".agentcube/picod", Data: []byte("agent")}); err == nil {
				err = u.finish(t.Context())
			}
			if err != nil && CodeOf(err) != CodeUnsupported {
				t.Errorf("furnish an unpacked tree: %v", err)
			}
		}
		if data, err := os.ReadFile(canary); err != nil || string(data) != "safe" {
			t.Errorf("the canary says %q, %v", data, err)
		}
		if entries, err := os.ReadDir(base); err != nil || len(entries) != 2 {
			t.Errorf("beside the tree are %v, %v", entries, err)
		}
	})
}
