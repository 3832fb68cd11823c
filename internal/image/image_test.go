package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/image/ociwrite"
)

// ent is one entry of a test layer. The zero type is a regular file.
type ent struct {
	name, body, link string
	typ              byte
	mode             int64
	uid, gid         int
	mtime            int64
}

func dir(name string) ent             { return ent{name: name, typ: tar.TypeDir, mode: 0o755} }
func file(name, body string) ent      { return ent{name: name, body: body, mode: 0o644} }
func symlink(name, target string) ent { return ent{name: name, typ: tar.TypeSymlink, link: target} }
func hardlink(name, target string) ent {
	return ent{name: name, typ: tar.TypeLink, link: target}
}

func layerTar(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range ents {
		if e.typ == 0 {
			e.typ = tar.TypeReg
		}
		hdr := &tar.Header{
			Typeflag: e.typ, Name: e.name, Linkname: e.link, Mode: e.mode, Uid: e.uid, Gid: e.gid,
			ModTime: time.Unix(e.mtime, 0), Size: int64(len(e.body)),
		}
		if err := tw.WriteHeader(hdr); err != nil {
			t.Fatalf("write header %q: %v", e.name, err)
		}
		if _, err := tw.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	if _, err := gz.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func sha(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// packed is a layer as an image stores it.
type packed struct {
	stored, plain []byte
	mediaType     types.MediaType
}

func plainLayer(t testing.TB, ents ...ent) packed {
	b := layerTar(t, ents...)
	return packed{b, b, types.OCIUncompressedLayer}
}

func gzipLayer(t testing.TB, ents ...ent) packed {
	b := layerTar(t, ents...)
	return packed{gzipped(t, b), b, types.OCILayer}
}

func testArchive(t testing.TB, name string, layers ...packed) ociwrite.Archive {
	t.Helper()
	dir := t.TempDir()
	a := ociwrite.Archive{
		Name: name, OS: "linux", Architecture: runtime.GOARCH, Created: time.Unix(1_700_000_000, 0),
		Config: v1.Config{Env: []string{"LANG=C.UTF-8"}, Cmd: []string{"sh"}, User: "1000", WorkingDir: "/workspace"},
	}
	for _, l := range layers {
		p := filepath.Join(dir, sha(l.stored).Hex)
		if err := os.WriteFile(p, l.stored, 0o600); err != nil {
			t.Fatal(err)
		}
		a.Layers = append(a.Layers, ociwrite.Layer{
			Path: p, MediaType: l.mediaType, Digest: sha(l.stored), Size: int64(len(l.stored)), DiffID: sha(l.plain),
		})
	}
	return a
}

// archiveFile writes an OCI archive of the layers and returns its path.
func archiveFile(t testing.TB, name string, layers ...packed) string {
	t.Helper()
	var buf bytes.Buffer
	if err := ociwrite.WriteArchive(t.Context(), &buf, testArchive(t, name, layers...)); err != nil {
		t.Fatal(err)
	}
	return tempFile(t, buf.Bytes())
}

func tempFile(t testing.TB, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func openStore(t testing.TB, opts Options) *Store {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = filepath.Join(t.TempDir(), "images")
	}
	s := New(opts)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustImport(t testing.TB, s *Store, ref, source string) Image {
	t.Helper()
	img, err := s.Import(t.Context(), ref, source, nil)
	if err != nil {
		t.Fatalf("import: %v", err)
	}
	return img
}

// contents counts the files of each directory of a store.
func contents(t testing.TB, s *Store) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, dir := range []string{"blobs", "rootfs", "tmp"} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		n[dir] = len(entries)
	}
	return n
}

func wantContents(t testing.TB, s *Store, blobs, rootfs int) {
	t.Helper()
	got := contents(t, s)
	if got["blobs"] != blobs || got["rootfs"] != rootfs || got["tmp"] != 0 {
		t.Errorf("store has %v, want %d blobs, %d rootfs, no tmp", got, blobs, rootfs)
	}
}

func wantCode(t testing.TB, err error, code Code) {
	t.Helper()
	if CodeOf(err) != code {
		t.Errorf("error is %v (code %q), want code %s", err, CodeOf(err), code)
	}
}

// node is one file of an EROFS image, as gVisor reads it.
type node struct {
	mode     fs.FileMode
	perm     uint32
	uid, gid uint32
	nlink    uint32
	mtime    uint64
	nid      uint64
	body     string
}

var fixedTime = time.Unix(1_600_000_000, 0)

func lutimes(path string, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
