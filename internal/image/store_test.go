package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

const oddName = "a\nb \xff\xfe ☃ 'q'"

// lowerLayer has every kind of entry that an image keeps.
func lowerLayer() []ent {
	return []ent{
		ent{name: "./", typ: '5', mode: 0o755},
		dir("usr"), dir("usr/bin"),
		ent{name: "usr/bin/tool", body: "v1", mode: 0o755, uid: 3, gid: 70000, mtime: 1000},
		ent{name: "usr/bin/su", body: "su", mode: 0o4755},
		hardlink("usr/bin/tool2", "usr/bin/tool"),
		symlink("bin", "usr/bin"),
		symlink("etc-link", "/etc/passwd"),
		ent{name: "home", typ: '5', mode: 0o700, uid: 1000, gid: 1000, mtime: 2000},
		file("home/"+oddName, "odd"),
		dir("gone"), file("gone/a", "a"), file("gone/b", "b"),
		dir("hollow"), file("hollow/old", "old"), dir("hollow/sub"), file("hollow/sub/old", "x"),
		file("was-file", "f"), dir("was-dir"), file("was-dir/x", "x"),
		file("big", strings.Repeat("0123456789", 1000)),
		file("empty", ""),
	}
}

// TestImportRefusesAFileAsParent: a later layer cannot put entries below what an
// earlier one made a file.
func TestImportRefusesAFileAsParent(t *testing.T) {
	path := archiveFile(t, "agentcube/test:1",
		plainLayer(t, lowerLayer()...),
		gzipLayer(t,
			file("bin/through-link", "in usr/bin"),
			file("hollow/new", "new"), ent{name: "hollow/.wh..wh..opq"},
			ent{name: "gone/.wh.a"},
			file("was-file/now-dir", "d"), // its parent is a file below
		),
	)
	s := openStore(t, Options{})
	_, err := s.Import(t.Context(), "", path, nil)
	wantCode(t, err, CodeArchiveUnsafe)
	wantContents(t, s, 0, 0)
}

func TestImportKeepsWhatAnImageIs(t *testing.T) {
	s := openStore(t, Options{})
	path := archiveFile(t, "agentcube/test:1",
		plainLayer(t, append(lowerLayer(),
			ent{name: "null", typ: '3', mode: 0o666}, ent{name: "fifo", typ: '6', mode: 0o666})...),
		gzipLayer(t,
			file("bin/through-link", "in usr/bin"),
			file("hollow/new", "new"), ent{name: "hollow/.wh..wh..opq"},
			ent{name: "gone/.wh.a"}, ent{name: ".wh.never-was"},
			dir("was-file"), file("was-file/now-dir", "d"), file("was-dir", "now a file"),
			ent{name: "usr/bin/tool2", body: "v2", mode: 0o755}, // parts from its hard link
		),
	)
	img := mustImport(t, s, "", path)
	if diff := cmp.Diff([]string{"agentcube/test:1"}, img.References); diff != "" {
		t.Errorf("references: %s", diff)
	}
	if diff := cmp.Diff(Config{Env: []string{"LANG=C.UTF-8"}, Cmd: []string{"sh"}, User: "1000", WorkingDir: "/workspace"}, img.Config); diff != "" {
		t.Errorf("config: %s", diff)
	}
	nodes := readEROFS(t, img.RootfsPath)
	check := func(name, body string, mode fs.FileMode, perm, uid, gid uint32) {
		t.Helper()
		n, ok := nodes[name]
		if !ok || n.body != body || n.mode != mode || n.perm != perm || n.uid != uid || n.gid != gid {
			t.Errorf("%q is %+v (there: %v)", name, n, ok)
		}
	}
	check("usr/bin/tool", "v1", 0, 0o755, 3, 70000)
	check("usr/bin/tool2", "v2", 0, 0o755, 0, 0)
	check("usr/bin/su", "su", 0, 0o4755, 0, 0)
	check("usr/bin/through-link", "in usr/bin", 0, 0o644, 0, 0)
	check("bin", "usr/bin", fs.ModeSymlink, 0o777, 0, 0)
	check("etc-link", "/etc/passwd", fs.ModeSymlink, 0o777, 0, 0)
	check("home", "", fs.ModeDir, 0o700, 1000, 1000)
	check("home/"+oddName, "odd", 0, 0o644, 0, 0)
	check("gone/b", "b", 0, 0o644, 0, 0)
	check("hollow/new", "new", 0, 0o644, 0, 0)
	check("was-file/now-dir", "d", 0, 0o644, 0, 0)
	check("was-dir", "now a file", 0, 0o644, 0, 0)
	check("big", strings.Repeat("0123456789", 1000), 0, 0o644, 0, 0)
	check("empty", "", 0, 0o644, 0, 0)
	check("tmp", "", fs.ModeDir, 0o1777, 0, 0)
	check("workspace", "", fs.ModeDir, 0o755, 0, 0)
	check(".agentcube", "", fs.ModeDir, 0o755, 0, 0)
	check("etc/resolv.conf", "", 0, 0o644, 0, 0)
	for _, name := range []string{"gone/a", "hollow/old", "hollow/sub", "null", "fifo", "hollow/.wh..wh..opq", "gone/.wh.a"} {
		if n, there := nodes[name]; there {
			t.Errorf("%q is there: %+v", name, n)
		}
	}
	if m := nodes["usr/bin/tool"].mtime; m != 1000 {
		t.Errorf("mtime of a file is %d, want 1000", m)
	}
	if m := nodes["home"].mtime; m != 2000 {
		t.Errorf("mtime of a directory is %d, want 2000", m)
	}
	wantContents(t, s, 4, 1)
}

func TestHardLinksShareAnInode(t *testing.T) {
	s := openStore(t, Options{})
	img := mustImport(t, s, "x", archiveFile(t, "x", gzipLayer(t, file("a", "same"), hardlink("b", "./a"))))
	nodes := readEROFS(t, img.RootfsPath)
	if a, b := nodes["a"], nodes["b"]; a.nid != b.nid || a.nlink != 2 || b.body != "same" {
		t.Errorf("hard links came out as %+v and %+v", a, b)
	}
}

func TestAgentAndItsChange(t *testing.T) {
	layer := plainLayer(t, symlink(".agentcube", "/etc")) // an image that wants the agent elsewhere
	s := openStore(t, Options{Agent: &Agent{Path: ".agentcube/picod", Data: []byte("v1")}})
	_, err := s.Import(t.Context(), "x", archiveFile(t, "x", layer), nil)
	wantCode(t, err, CodeUnsupported)

	layer = plainLayer(t, dir(".agentcube"), ent{name: ".agentcube/picod", body: "impostor", mode: 0o4777, uid: 5})
	first := mustImport(t, s, "x", archiveFile(t, "x", layer))
	if n := readEROFS(t, first.RootfsPath)[".agentcube/picod"]; n.body != "v1" || n.perm != 0o755 || n.uid != 0 {
		t.Errorf("agent is %+v", n)
	}

	next := openStore(t, Options{Dir: s.opts.Dir, Agent: &Agent{Path: ".agentcube/picod", Data: []byte("v2")}})
	img, err := next.Rootfs(t.Context(), "x:latest")
	if err != nil {
		t.Fatal(err)
	}
	if n := readEROFS(t, img.Rootfs)[".agentcube/picod"]; n.body != "v2" {
		t.Errorf("agent after its change is %+v", n)
	}
	if diff := cmp.Diff([]string{"LANG=C.UTF-8"}, img.Env); diff != "" {
		t.Errorf("environment: %s", diff)
	}
	wantContents(t, next, 3, 2)
	report, err := next.GC(t.Context())
	if err != nil || report.Files != 1 {
		t.Errorf("GC: %+v, %v", report, err)
	}
	wantContents(t, next, 3, 1)
	if _, err := os.Stat(img.Rootfs); err != nil {
		t.Errorf("GC took the current EROFS file: %v", err)
	}
}

func TestSameContentSameBytes(t *testing.T) {
	path := archiveFile(t, "x", gzipLayer(t, dir("d"), file("d/b", "b"), file("d/a", "a"), hardlink("z", "d/a"), symlink("s", "d")),
		plainLayer(t, file("d/c", strings.Repeat("c", 9000))))
	var files [2][]byte
	var digests [2]string
	for i := range files {
		img := mustImport(t, openStore(t, Options{}), "x", path)
		data, err := os.ReadFile(img.RootfsPath)
		if err != nil {
			t.Fatal(err)
		}
		files[i], digests[i] = data, img.Digest
	}
	if !bytes.Equal(files[0], files[1]) || digests[0] != digests[1] {
		t.Error("two imports of one archive differ")
	}
}

func TestReferences(t *testing.T) {
	s := openStore(t, Options{})
	one := mustImport(t, s, "", archiveFile(t, "agentcube/python", plainLayer(t, file("a", "1"))))
	two := mustImport(t, s, "other:v2", archiveFile(t, "agentcube/python:latest", plainLayer(t, file("a", "2"))))
	if one.References[0] != "agentcube/python:latest" || two.References[0] != "other:v2" {
		t.Errorf("references are %v and %v", one.References, two.References)
	}
	for _, ref := range []string{"agentcube/python", "agentcube/python:latest", one.Digest} {
		if got, err := s.Get(t.Context(), ref); err != nil || got.Digest != one.Digest {
			t.Errorf("Get(%q) = %s, %v", ref, got.Digest, err)
		}
	}
	// A name moves to the image that was given it last.
	moved := mustImport(t, s, "agentcube/python", archiveFile(t, "z", plainLayer(t, file("a", "3"))))
	if got, err := s.Get(t.Context(), "agentcube/python"); err != nil || got.Digest != moved.Digest {
		t.Errorf("after the move Get = %s, %v", got.Digest, err)
	}
	images, err := s.List(t.Context())
	if err != nil || len(images) != 3 {
		t.Errorf("List has %d images, %v", len(images), err)
	}
	report, err := s.GC(t.Context())
	if err != nil || report.Images != 1 {
		t.Errorf("GC: %+v, %v", report, err)
	}
	if _, err := s.Get(t.Context(), one.Digest); !errors.Is(err, sandbox.ErrNoImage) {
		t.Errorf("image without a name is still there: %v", err)
	}
	for _, ref := range []string{"", "UPPER", "a b", "x:ta g", "../x", "a//b", "-x", "..", "a:b:c", strings.Repeat("x", 600), "x@sha256:" + strings.Repeat("0", 64)} {
		_, err := s.Import(t.Context(), ref, "/nowhere", nil)
		if ref != "" {
			wantCode(t, err, CodeReferenceInvalid)
		} else {
			wantCode(t, err, CodeNotFound)
		}
	}
}

func TestNormalize(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, tt := range []struct{ ref, want string }{
		{"python", "python:latest"},
		{"agentcube/python:1", "agentcube/python:1"},
		{name.DefaultRegistry + "/library/python:3", "python:3"},
		{name.DefaultRegistry + "/team/app", "team/app:latest"},
		{"registry.example/library/app:3", "registry.example/library/app:3"},
		{"localhost:5000/x", "localhost:5000/x:latest"},
		{"[::1]:5000/x", "[::1]:5000/x:latest"},
		{digest, digest},
		{"x@" + digest, "x@" + digest},
	} {
		if got, err := Normalize(tt.ref); got != tt.want || err != nil {
			t.Errorf("Normalize(%q) = %q, %v, want %q", tt.ref, got, err, tt.want)
		}
	}
}

func TestRemove(t *testing.T) {
	used := ""
	s := openStore(t, Options{InUse: func(digest string) bool { return digest == used }})
	path := archiveFile(t, "x", plainLayer(t, file("a", "1")))
	img := mustImport(t, s, "x:1", path)
	mustImport(t, s, "x:2", path)
	wantContents(t, s, 3, 1)
	wantCode(t, s.Remove(t.Context(), "x:3"), CodeNotFound)

	used = img.Digest
	wantCode(t, s.Remove(t.Context(), img.Digest), CodeInUse)
	used = ""
	// Another process, here another Store, holds it.
	other := openStore(t, Options{Dir: s.opts.Dir})
	release, err := other.Hold(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	mustImport(t, s, "x:1", path) // does not loosen the hold
	if err := s.Remove(t.Context(), "x:1"); err != nil {
		t.Errorf("removing one name of two: %v", err)
	}
	wantCode(t, s.Remove(t.Context(), "x:2"), CodeInUse)
	release()
	if err := s.Remove(t.Context(), "x:2"); err != nil {
		t.Error(err)
	}
	wantContents(t, s, 0, 0)
}

func TestLayersAreShared(t *testing.T) {
	s := openStore(t, Options{})
	base := gzipLayer(t, file("base", strings.Repeat("b", 1000)))
	mustImport(t, s, "one", archiveFile(t, "", base, gzipLayer(t, file("one", "1"))))
	mustImport(t, s, "two", archiveFile(t, "", base, gzipLayer(t, file("two", "2"))))
	wantContents(t, s, 2*3+1, 2)
	if err := s.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	wantContents(t, s, 4, 1)
	if img, err := s.Rootfs(t.Context(), "two"); err != nil || readEROFS(t, img.Rootfs)["base"].body == "" {
		t.Errorf("the other image lost its base: %v", err)
	}
}

func TestConcurrentImports(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	var paths []string
	for _, body := range []string{"1", "2", "3"} {
		paths = append(paths, archiveFile(t, "", plainLayer(t, file("a", body))))
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			s := New(Options{Dir: dir}) // as separate processes would
			if err := s.Open(t.Context()); err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if _, err := s.Import(t.Context(), "x:"+string(rune('a'+i)), paths[i%3], nil); err != nil {
				t.Errorf("import: %v", err)
			}
			if _, err := s.GC(t.Context()); err != nil {
				t.Errorf("GC: %v", err)
			}
		})
	}
	wg.Wait()
	s := openStore(t, Options{Dir: dir})
	images, err := s.List(t.Context())
	if err != nil || len(images) != 3 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	for _, img := range images {
		if len(img.References) != 4 || img.RootfsPath == "" {
			t.Errorf("image %+v", img)
		}
	}
	wantContents(t, s, 9, 3)
}

func TestCancelLeavesNothing(t *testing.T) {
	path := archiveFile(t, "x", gzipLayer(t, file("a", strings.Repeat("a", 5<<20))))
	for _, stage := range []string{"fetch", "unpack", "build"} {
		t.Run(stage, func(t *testing.T) {
			s := openStore(t, Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := s.Import(ctx, "x", path, func(p Progress) {
				if p.Stage == stage {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
			wantContents(t, s, 0, 0)
		})
	}
}

func TestWaitForLockIsCancelled(t *testing.T) {
	s := openStore(t, Options{})
	held, err := lockFile(t.Context(), s.path("lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// TestOpenCleansUp plays processes killed at each point where something lies
// about, and one that is still at work.
func TestOpenCleansUp(t *testing.T) {
	s := openStore(t, Options{})
	img := mustImport(t, s, "x", archiveFile(t, "x", plainLayer(t, file("a", "1"))))
	alive, err := s.newWork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	orphan := strings.Repeat("0", 64)
	for _, p := range []string{"tmp/dead/tree/x", "blobs/" + orphan, "rootfs/" + orphan + ".plain.v1.erofs", "rootfs/x"} {
		if err := os.MkdirAll(filepath.Dir(s.path(p)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path(p), []byte("left over"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, Options{Dir: s.opts.Dir})
	if got := contents(t, s); got["tmp"] != 1 {
		t.Errorf("tmp has %d entries, want the one of the live process", got["tmp"])
	}
	if err := alive.close(); err != nil {
		t.Fatal(err)
	}
	wantContents(t, s, 3, 1)
	if readEROFS(t, img.RootfsPath)["a"].body != "1" {
		t.Error("the image did not survive")
	}
}

func TestDamagedStore(t *testing.T) {
	s := openStore(t, Options{})
	source := archiveFile(t, "x", plainLayer(t, file("a", "1")))
	img := mustImport(t, s, "x", source)
	layers, err := s.layersOf(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(img.RootfsPath); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(layers[0].path, layerTar(t, file("a", "2")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Rootfs(t.Context(), "x")
	wantCode(t, err, CodeDigestMismatch)
	if healed := mustImport(t, s, "x", source); readEROFS(t, healed.RootfsPath)["a"].body != "1" {
		t.Error("importing again does not mend the image")
	}
	if err := os.Remove(s.blobPath(hexOf(img.Digest))); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Errorf("one damaged image keeps the store from opening: %v", err)
	}
	if err := s.Remove(t.Context(), "x"); err != nil {
		t.Errorf("a damaged image cannot be removed: %v", err)
	}
	wantContents(t, s, 0, 0)
	if err := os.WriteFile(s.path("index.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Open(t.Context()), CodeStoreCorrupt)
}

func TestGCKeepsWhatIsInUse(t *testing.T) {
	used := ""
	s := openStore(t, Options{InUse: func(digest string) bool { return digest == used }})
	old := mustImport(t, s, "x", archiveFile(t, "", plainLayer(t, file("a", "1"))))
	mustImport(t, s, "x", archiveFile(t, "", plainLayer(t, file("a", "2"))))
	next := openStore(t, Options{Dir: s.opts.Dir, InUse: s.opts.InUse, Agent: &Agent{Path: "agent", Data: []byte("new")}})
	used = old.Digest
	report, err := next.GC(t.Context())
	if err != nil || report.Images != 0 || report.Files != 1 {
		t.Errorf("GC with the old image in use: %+v, %v", report, err)
	}
	if _, err := os.Stat(old.RootfsPath); err != nil {
		t.Errorf("GC took the file of an image in use: %v", err)
	}
	used = ""
	report, err = next.GC(t.Context())
	if err != nil || report.Images != 1 || report.Files != 4 {
		t.Errorf("GC with nothing in use: %+v, %v", report, err)
	}
	wantContents(t, next, 3, 0)
}

// TestBuildOnce lets several processes want an EROFS file at the same time.
func TestBuildOnce(t *testing.T) {
	s := openStore(t, Options{})
	mustImport(t, s, "x", archiveFile(t, "x", plainLayer(t, file("a", "1"))))
	mkfs := filepath.Join(t.TempDir(), "mkfs.erofs")
	script := "#!/bin/sh\necho run >>" + mkfs + ".runs\nexec mkfs.erofs \"$@\"\n"
	if err := os.WriteFile(mkfs, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	agent := &Agent{Path: ".agentcube/picod", Data: []byte("new")}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			img, err := New(Options{Dir: s.opts.Dir, Agent: agent, Mkfs: mkfs}).Rootfs(t.Context(), "x")
			if err != nil {
				t.Errorf("rootfs: %v", err)
			} else if n := readEROFS(t, img.Rootfs)[".agentcube/picod"]; n.body != "new" {
				t.Errorf("agent is %+v", n)
			}
		})
	}
	wg.Wait()
	if runs, err := os.ReadFile(mkfs + ".runs"); err != nil || string(runs) != "run\n" {
		t.Errorf("mkfs.erofs ran: %q, %v", runs, err)
	}
	wantContents(t, s, 3, 2)
}
