package ociwrite

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"d", "d/sub", "skipped", "skipped/below"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"d/b", "d/a", "d/sub/\xff", "d.txt", "skipped/x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o604); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "d/a"), filepath.Join(dir, "z")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("d/a", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTarDir(t *testing.T) {
	latest := time.Unix(1_000_000_000, 0)
	opts := TarOptions{Latest: latest, Skip: func(name string) bool { return name == "skipped" }}
	var first, second bytes.Buffer
	for _, buf := range []*bytes.Buffer{&first, &second} {
		if err := TarDir(t.Context(), buf, tree(t), opts); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two trees with the same content give different layers")
	}
	var got []string
	for tr := tar.NewReader(&first); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !hdr.ModTime.Equal(latest) || hdr.Uname != "" {
			t.Errorf("entry %q has time %v and owner %q", hdr.Name, hdr.ModTime, hdr.Uname)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(hdr.Typeflag)+hdr.Name+">"+hdr.Linkname+string(body))
	}
	want := []string{"5./>", "5d/>", "0d/a>d/a", "0d/b>d/b", "5d/sub/>", "0d/sub/\xff>d/sub/\xff", "0d.txt>d.txt", "2l>d/a", "1z>d/a"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer: %s", diff)
	}
}

func TestTarDirIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := TarDir(ctx, io.Discard, tree(t), TarOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// TestArchiveIsValid lets the registry library judge what we write.
func TestArchiveIsValid(t *testing.T) {
	layer, err := GzipLayer(t.Context(), filepath.Join(t.TempDir(), "layer"), tree(t), TarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	a := Archive{Name: "agentcube/test:1", OS: "linux", Architecture: "amd64", Created: time.Unix(5, 0), Layers: []Layer{layer, layer}}
	if err := WriteArchive(t.Context(), &buf, a); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for tr := tar.NewReader(&buf); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, hdr.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ix, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(ix); err != nil {
		t.Errorf("the archive is not valid: %v", err)
	}
	m, err := ix.IndexManifest()
	if err != nil || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "agentcube/test:1" {
		t.Errorf("index is %+v, %v", m, err)
	}
}
