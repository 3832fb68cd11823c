package image

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// libraryImage is an image made by the registry library, not by our own writer.
func libraryImage(t testing.TB, arch, body string) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image,
		static.NewLayer(layerTar(t, file("who", body)), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Config.Env = "linux", arch, []string{"WHO=" + body}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

func wantBody(t testing.TB, img Image, body string) {
	t.Helper()
	if got := readEROFS(t, img.RootfsPath)["who"].body; got != body {
		t.Errorf("image has %q, want %q", got, body)
	}
}

func platformed(img v1.Image, arch, refName string) mutate.IndexAddendum {
	return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
		Platform:    &v1.Platform{OS: "linux", Architecture: arch},
		Annotations: map[string]string{"org.opencontainers.image.ref.name": refName},
	}}
}

func TestImportLayout(t *testing.T) {
	dir := t.TempDir()
	ours := libraryImage(t, runtime.GOARCH, "ours")
	inner := mutate.AppendManifests(empty.Index, platformed(libraryImage(t, "mips", "theirs"), "mips", ""), platformed(ours, runtime.GOARCH, ""))
	outer := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner, Descriptor: v1.Descriptor{
		Annotations: map[string]string{"io.containerd.image.name": "agentcube/nested:7"}}})
	if _, err := layout.Write(dir, outer); err != nil {
		t.Fatal(err)
	}
	img := mustImport(t, openStore(t, Options{}), "", dir)
	wantBody(t, img, "ours")
	digest, err := ours.Digest()
	if err != nil || img.Digest != digest.String() || img.References[0] != "agentcube/nested:7" {
		t.Errorf("image is %+v, want digest %s, %v", img, digest, err)
	}
}

func TestImportOneOfSeveral(t *testing.T) {
	dir := t.TempDir()
	ix := mutate.AppendManifests(empty.Index,
		platformed(libraryImage(t, runtime.GOARCH, "one"), runtime.GOARCH, "x:one"),
		platformed(libraryImage(t, runtime.GOARCH, "two"), runtime.GOARCH, "x:two"))
	if _, err := layout.Write(dir, ix); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{})
	_, err := s.Import(t.Context(), "x:three", dir, nil)
	wantCode(t, err, CodeAmbiguous)
	wantBody(t, mustImport(t, s, "x:two", dir), "two")
}

func TestLayoutWithFIFOsAndLinks(t *testing.T) {
	dir := t.TempDir()
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: libraryImage(t, runtime.GOARCH, "x")})); err != nil {
		t.Fatal(err)
	}
	secret := tempFile(t, []byte("{}"))
	for name, put := range map[string]func(string) error{
		"fifo": func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"link": func(p string) error { return os.Symlink(secret, p) },
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(dir, "index.json")
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			if err := put(p); err != nil {
				t.Fatal(err)
			}
			_, err := openStore(t, Options{}).Import(t.Context(), "x", dir, nil)
			wantCode(t, err, CodeSourceInvalid)
		})
	}
}

func TestImportDockerArchive(t *testing.T) {
	one, two := name.MustParseReference("agentcube/one:1").(name.Tag), name.MustParseReference("agentcube/two:2").(name.Tag)
	var single, both bytes.Buffer
	if err := tarball.Write(one, libraryImage(t, runtime.GOARCH, "one"), &single); err != nil {
		t.Fatal(err)
	}
	err := tarball.MultiRefWrite(map[name.Reference]v1.Image{
		one: libraryImage(t, runtime.GOARCH, "one"), two: libraryImage(t, runtime.GOARCH, "two")}, &both)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{})
	img := mustImport(t, s, "mine", tempFile(t, single.Bytes()))
	wantBody(t, img, "one")
	if len(img.Config.Env) != 1 || img.Config.Env[0] != "WHO=one" {
		t.Errorf("environment is %v", img.Config.Env)
	}
	again := mustImport(t, s, "", tempFile(t, gzipped(t, single.Bytes())))
	if again.Digest != img.Digest || len(again.References) != 2 {
		t.Errorf("the same archive in gzip gives %+v", again)
	}
	_, err = s.Import(t.Context(), "neither", tempFile(t, both.Bytes()), nil)
	wantCode(t, err, CodeAmbiguous)
}

// TestOldDockerArchive has one layer stand for another by a symbolic link.
func TestOldDockerArchive(t *testing.T) {
	layer := layerTar(t, file("who", "old"))
	config := `{"architecture":"` + runtime.GOARCH + `","os":"linux","rootfs":{"type":"layers","diff_ids":["` + sha(layer).String() + `"]}}`
	data := tarOf(t, file("c.json", config), file("manifest.json", `[{"Config":"c.json","Layers":["b/layer.tar"]}]`),
		file("a/layer.tar", string(layer)), symlink("b/layer.tar", "../a/layer.tar"))
	s := openStore(t, Options{})
	wantBody(t, mustImport(t, s, "x", tempFile(t, data)), "old")
	_, err := s.Import(t.Context(), "", tempFile(t, data), nil)
	wantCode(t, err, CodeReferenceInvalid) // nothing gives it a name
}

func TestImportDirectory(t *testing.T) {
	make := func(names ...string) string {
		dir := t.TempDir()
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(dir, n), fixedTime, fixedTime); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "z")); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, "a"), 1000, 1001); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"link", "."} {
			if err := lutimes(filepath.Join(dir, n), fixedTime); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	odd := "\xff\n☃"
	s := openStore(t, Options{})
	first, second := mustImport(t, s, "one", make("a", odd, "c")), mustImport(t, s, "two", make("c", odd, "a"))
	if first.Digest != second.Digest {
		t.Errorf("the same content gives %s and %s", first.Digest, second.Digest)
	}
	nodes := readEROFS(t, first.RootfsPath)
	if a := nodes["a"]; a.body != "a" || a.perm != 0o640 || a.uid != 1000 || a.gid != 1001 || a.nid != nodes["z"].nid {
		t.Errorf("file is %+v, its hard link %+v", a, nodes["z"])
	}
	if nodes[odd].body != odd || nodes["link"].body != "/etc/passwd" {
		t.Errorf("files are %+v, %+v", nodes[odd], nodes["link"])
	}
	if _, there := nodes["fifo"]; there {
		t.Error("the FIFO came along")
	}
	if other := mustImport(t, s, "three", make("a", "b")); other.Digest == first.Digest {
		t.Error("other content gives the same digest")
	}
	_, err := s.Import(t.Context(), "x", "/dev/null", nil)
	wantCode(t, err, CodeSourceInvalid)
	small := openStore(t, Options{Limits: Limits{BlobBytes: 1000}})
	_, err = small.Import(t.Context(), "x", make("a"), nil)
	wantCode(t, err, CodeTooLarge)
	wantContents(t, small, 0, 0)
}

func TestLibraryLayers(t *testing.T) {
	img, err := random.Image(2000, 4)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	if got := readEROFS(t, mustImport(t, openStore(t, Options{}), "x", dir).RootfsPath); len(got) < 4+7 {
		t.Errorf("image has %d files", len(got))
	}
}
