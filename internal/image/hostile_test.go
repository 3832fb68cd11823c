package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/volcano-sh/agentcube/internal/image/ociwrite"
)

// small limits that a few lines of test can exceed.
var small = Limits{Bytes: 70 << 20, FileBytes: 66 << 20, BlobBytes: 4 << 20, Entries: 50, Layers: 3,
	PathBytes: 600, PathDepth: 20, Ratio: 10, Document: 10_000}

func TestHostileLayers(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30) + strings.TrimPrefix(canary, "/")
	many := make([]ent, 60)
	for i := range many {
		many[i] = file("f"+strings.Repeat("x", i), "")
	}
	for _, tt := range []struct {
		name   string
		code   Code
		layers [][]ent
	}{
		{"dot dot", CodeArchiveUnsafe, [][]ent{{file(up, "x")}}},
		{"dot dot inside", CodeArchiveUnsafe, [][]ent{{file("a/../b", "x")}}},
		{"absolute", CodeArchiveUnsafe, [][]ent{{file(canary, "x")}}},
		{"absolute directory", CodeArchiveUnsafe, [][]ent{{dir("/")}}},
		{"root is a file", CodeArchiveUnsafe, [][]ent{{file(".", "x")}}},
		{"root is a link", CodeArchiveUnsafe, [][]ent{{symlink("./", "/etc")}}},
		{"through absolute link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary)), file("d/canary", "x")}}},
		{"through relative link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(up)), file("d/canary", "x")}}},
		{"through link of lower layer", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary))}, {file("d/canary", "x")}}},
		{"through chain of links", CodeArchiveUnsafe, [][]ent{{symlink("a", "b"), symlink("b", filepath.Dir(canary))}, {file("a/canary", "x")}}},
		{"directory through link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary)), dir("d/new")}}},
		{"link through link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary)), symlink("d/new", "x")}}},
		{"whiteout through link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary))}, {file("d/.wh.canary", "")}}},
		{"opaque through link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary))}, {file("d/.wh..wh..opq", "")}}},
		{"link swapped for its directory", CodeArchiveUnsafe, [][]ent{{dir("d"), file("d/a", "x"), symlink("d", filepath.Dir(canary)), file("d/canary", "x")}}},
		{"loop of links", CodeArchiveUnsafe, [][]ent{{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}}},
		{"dangling link as directory", CodeArchiveUnsafe, [][]ent{{symlink("a", "nowhere"), file("a/x", "x")}}},
		{"file as directory", CodeArchiveUnsafe, [][]ent{{file("a", "x"), file("a/b", "x")}}},
		{"hard link outside", CodeArchiveUnsafe, [][]ent{{hardlink("a", up)}}},
		{"hard link absolute", CodeArchiveUnsafe, [][]ent{{hardlink("a", canary)}}},
		{"hard link through link", CodeArchiveUnsafe, [][]ent{{symlink("d", filepath.Dir(canary)), hardlink("a", "d/canary")}}},
		{"hard link to nothing", CodeArchiveUnsafe, [][]ent{{hardlink("a", "b")}}},
		{"hard link to itself", CodeArchiveUnsafe, [][]ent{{hardlink("a", "a")}}},
		{"hard link to directory", CodeArchiveUnsafe, [][]ent{{dir("d"), hardlink("a", "d")}}},
		{"file twice", CodeArchiveUnsafe, [][]ent{{file("a", "1"), file("./a", "2")}}},
		{"file and directory", CodeArchiveUnsafe, [][]ent{{file("a", "1"), dir("a")}}},
		{"empty link", CodeArchiveUnsafe, [][]ent{{symlink("a", "")}}},
		{"whiteout of dot", CodeArchiveUnsafe, [][]ent{{file("d/.wh..", "")}}},
		{"whiteout of dot dot", CodeArchiveUnsafe, [][]ent{{file("d/.wh...", "")}}},
		{"whiteout of nothing", CodeArchiveUnsafe, [][]ent{{file("d/.wh.", "")}}},
		{"impossible owner", CodeArchiveUnsafe, [][]ent{{{name: "a", uid: 1<<32 - 1}}}},
		{"mount point is a link", CodeUnsupported, [][]ent{{symlink("proc", "/etc")}}},
		{"etc is a link", CodeUnsupported, [][]ent{{symlink("etc", filepath.Dir(canary))}}},
		{"unknown kind", CodeUnsupported, [][]ent{{{name: "a", typ: 'Z'}}}},
		{"many entries", CodeTooLarge, [][]ent{many}},
		{"many entries that do not show", CodeTooLarge, [][]ent{{file(strings.Repeat("d/", 18)+"f", "")}, {file("2/"+strings.Repeat("d/", 17)+"f", "")}, {file("3/"+strings.Repeat("d/", 18)+"f", "")}}},
		{"many layers", CodeTooLarge, [][]ent{{}, {}, {}, {}}},
		{"long path", CodeTooLarge, [][]ent{{file(strings.Repeat("long/", 200)+"x", "")}}},
		{"deep path", CodeTooLarge, [][]ent{{file(strings.Repeat("d/", 30)+"x", "")}}},
		{"deep through links", CodeTooLarge, [][]ent{{file(strings.Repeat("d/", 15)+"x", ""), symlink("l", strings.Repeat("d/", 15)+"."), dir("l/" + strings.Repeat("e/", 10))}}},
		{"long name", CodeTooLarge, [][]ent{{file(strings.Repeat("n", 256), "")}}},
		{"long link", CodeTooLarge, [][]ent{{symlink("a", strings.Repeat("x/", 2100))}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, Options{Limits: small})
			var layers []packed
			for _, l := range tt.layers {
				layers = append(layers, plainLayer(t, l...))
			}
			_, err := s.Import(t.Context(), "x", archiveFile(t, "x", layers...), nil)
			wantCode(t, err, tt.code)
			wantContents(t, s, 0, 0)
		})
	}
	if data, err := os.ReadFile(canary); err != nil || string(data) != "safe" {
		t.Errorf("the canary outside says %q, %v", data, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(canary)); err != nil || len(entries) != 1 {
		t.Errorf("beside the canary are %v, %v", entries, err)
	}
}

func zstdLayer(t *testing.T, plain []byte) packed {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return packed{enc.EncodeAll(plain, nil), plain, types.OCILayerZStd}
}

func TestZstdLayer(t *testing.T) {
	s := openStore(t, Options{})
	img := mustImport(t, s, "x", archiveFile(t, "x", zstdLayer(t, layerTar(t, file("a", "from zstd")))))
	if got := readEROFS(t, img.RootfsPath)["a"].body; got != "from zstd" {
		t.Errorf("file has %q", got)
	}
}

// patched returns the tar with its first header changed and its checksum right again.
func patched(data []byte, change func(hdr []byte)) []byte {
	data = bytes.Clone(data)
	change(data[:512])
	copy(data[148:156], "        ")
	sum := 0
	for _, b := range data[:512] {
		sum += int(b)
	}
	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

// sparseTar has one file of the size, all of it hole.
func sparseTar(t testing.TB, size int64) []byte {
	return patched(layerTar(t, file("sparse", "")), func(hdr []byte) {
		hdr[156] = tar.TypeGNUSparse
		copy(hdr[257:], "ustar  \x00")
		clear(hdr[345:512])
		copy(hdr[386:], "00000000000\x0000000000000\x00") // one empty piece
		hdr[483] = 0x80                                   // a number in base 256 follows
		binary.BigEndian.PutUint64(hdr[487:], uint64(size))
	})
}

func TestBombs(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, 65<<20)
	big := layerTar(t, file("a", string(zeros)))
	after := append(layerTar(t, file("a", "x")), bytes.Repeat([]byte{0}, 75<<20)...)
	sparse := sparseTar(t, 1<<42)
	for name, l := range map[string]packed{
		"gzip":          {gzipped(t, big), big, types.OCILayer},
		"zstd":          zstdLayer(t, big),
		"after the end": zstdLayer(t, after),
		"sparse file":   {sparse, sparse, types.OCIUncompressedLayer},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{Limits: small})
			_, err := s.Import(t.Context(), "x", archiveFile(t, "x", l), nil)
			wantCode(t, err, CodeTooLarge)
			wantContents(t, s, 0, 0)
		})
	}
	t.Run("archive in gzip", func(t *testing.T) {
		s := openStore(t, Options{Limits: small})
		_, err := s.Import(t.Context(), "x", tempFile(t, gzipped(t, zeros)), nil)
		wantCode(t, err, CodeTooLarge)
		wantContents(t, s, 0, 0)
	})
	t.Run("stored layers", func(t *testing.T) {
		l := plainLayer(t, file("a", strings.Repeat("x", 5<<20)))
		s := openStore(t, Options{Limits: small})
		_, err := s.Import(t.Context(), "x", archiveFile(t, "x", l), nil)
		wantCode(t, err, CodeTooLarge)
	})
}

func TestSparseFileIsKept(t *testing.T) {
	l := sparseTar(t, 10_000)
	s := openStore(t, Options{})
	img := mustImport(t, s, "x", archiveFile(t, "x", packed{l, l, types.OCIUncompressedLayer}))
	if got := readEROFS(t, img.RootfsPath)["sparse"].body; got != strings.Repeat("\x00", 10_000) {
		t.Errorf("sparse file has %d bytes", len(got))
	}
}

// tarOf packs named files in the given order.
func tarOf(t testing.TB, ents ...ent) []byte { return layerTar(t, ents...) }

func TestHostileArchives(t *testing.T) {
	good := plainLayer(t, file("a", "1"))
	archive := testArchive(t, "x", good)
	config, manifest, configDigest, manifestDigest, err := archive.Documents()
	if err != nil {
		t.Fatal(err)
	}
	// build packs the image after change has tampered with its parts.
	build := func(change func(parts map[string][]byte, ix *v1.IndexManifest)) []byte {
		ix := v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Digest: manifestDigest, Size: int64(len(manifest))}}}
		parts := map[string][]byte{
			"layer": good.stored, "config": config, "manifest": manifest,
		}
		change(parts, &ix)
		index, err := json.Marshal(ix)
		if err != nil {
			t.Fatal(err)
		}
		ents := []ent{file("oci-layout", "{}"), file("index.json", string(index))}
		for name, h := range map[string]v1.Hash{"layer": sha(good.stored), "config": configDigest, "manifest": manifestDigest} {
			if data := parts[name]; data != nil {
				ents = append(ents, file("blobs/sha256/"+h.Hex, string(data)))
			}
		}
		return tarOf(t, ents...)
	}
	whole := build(func(map[string][]byte, *v1.IndexManifest) {})
	for _, tt := range []struct {
		name string
		code Code
		data []byte
	}{
		{"not a tar", CodeSourceInvalid, []byte(strings.Repeat("no tar", 200))},
		{"empty", CodeSourceInvalid, nil},
		{"no image in it", CodeSourceInvalid, tarOf(t, file("readme", "x"))},
		{"truncated", CodeSourceInvalid, whole[:len(whole)/2]},
		{"truncated gzip", CodeSourceInvalid, gzipped(t, whole)[:200]},
		{"member twice", CodeArchiveUnsafe, tarOf(t, file("index.json", "{}"), file("./index.json", "{}"))},
		{"member is a device", CodeArchiveUnsafe, tarOf(t, ent{name: "index.json", typ: '3'})},
		{"member leads to itself", CodeSourceInvalid, tarOf(t, symlink("index.json", "index.json"))},
		{"index is no JSON", CodeSourceInvalid, tarOf(t, file("index.json", "{"))},
		{"index is huge", CodeTooLarge, tarOf(t, file("index.json", strings.Repeat(" ", 20_000)))},
		{"no manifest for us", CodePlatformMissing, build(func(_ map[string][]byte, ix *v1.IndexManifest) {
			ix.Manifests[0].Platform = &v1.Platform{OS: "plan9", Architecture: "mips"}
		})},
		{"two images, neither named", CodeAmbiguous, build(func(_ map[string][]byte, ix *v1.IndexManifest) {
			ix.Manifests = append(ix.Manifests, ix.Manifests[0])
		})},
		{"index in itself", CodeDigestMismatch, build(func(p map[string][]byte, ix *v1.IndexManifest) {
			ix.Manifests[0].MediaType = types.OCIImageIndex
			p["manifest"], _ = json.Marshal(ix)
		})},
		{"manifest missing", CodeSourceInvalid, build(func(p map[string][]byte, _ *v1.IndexManifest) { p["manifest"] = nil })},
		{"config missing", CodeSourceInvalid, build(func(p map[string][]byte, _ *v1.IndexManifest) { p["config"] = nil })},
		{"layer missing", CodeSourceInvalid, build(func(p map[string][]byte, _ *v1.IndexManifest) { p["layer"] = nil })},
		{"manifest changed", CodeDigestMismatch, build(func(p map[string][]byte, _ *v1.IndexManifest) {
			p["manifest"] = bytes.Replace(manifest, []byte(":2"), []byte(":3"), 1)
		})},
		{"config changed", CodeDigestMismatch, build(func(p map[string][]byte, _ *v1.IndexManifest) {
			p["config"] = bytes.Replace(config, []byte("1000"), []byte("0000"), 1)
		})},
		{"layer changed", CodeDigestMismatch, build(func(p map[string][]byte, _ *v1.IndexManifest) { p["layer"] = layerTar(t, file("a", "2")) })},
		{"layer longer", CodeDigestMismatch, build(func(p map[string][]byte, _ *v1.IndexManifest) {
			p["layer"] = append(bytes.Clone(good.stored), 0)
		})},
		{"layer shorter", CodeDigestMismatch, build(func(p map[string][]byte, _ *v1.IndexManifest) { p["layer"] = good.stored[:600] })},
		{"manifest size wrong", CodeDigestMismatch, build(func(_ map[string][]byte, ix *v1.IndexManifest) { ix.Manifests[0].Size = 5 })},
		{"docker manifest is no JSON", CodeSourceInvalid, tarOf(t, file("manifest.json", "["))},
		{"docker config missing", CodeSourceInvalid, tarOf(t, file("manifest.json", `[{"Config":"../../etc/passwd"}]`))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, Options{Limits: small})
			_, err := s.Import(t.Context(), "x", tempFile(t, tt.data), nil)
			wantCode(t, err, tt.code)
			wantContents(t, s, 0, 0)
		})
	}
}

// TestManifestsThatDisagree are images whose digests are right and whose
// documents are wrong.
func TestManifestsThatDisagree(t *testing.T) {
	layer := func() packed { return plainLayer(t, file("a", "1")) }
	for _, tt := range []struct {
		name   string
		code   Code
		change func(*ociwrite.Archive)
	}{
		{"plain digest wrong", CodeDigestMismatch, func(a *ociwrite.Archive) { a.Layers[0].DiffID = sha([]byte("other")) }},
		{"other platform", CodePlatformMissing, func(a *ociwrite.Archive) { a.Architecture = "mips" }},
		{"unknown layer", CodeUnsupported, func(a *ociwrite.Archive) { a.Layers[0].MediaType = "application/x-cpio" }},
		{"foreign layer", CodeUnsupported, func(a *ociwrite.Archive) { a.Layers[0].MediaType = types.DockerForeignLayer }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := testArchive(t, "x", layer())
			tt.change(&a)
			var buf bytes.Buffer
			if err := ociwrite.WriteArchive(t.Context(), &buf, a); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, Options{})
			_, err := s.Import(t.Context(), "x", tempFile(t, buf.Bytes()), nil)
			wantCode(t, err, tt.code)
			wantContents(t, s, 0, 0)
		})
	}
}

func TestDamagedTarHeaders(t *testing.T) {
	whole := layerTar(t, file("a", "1"), file("b", strings.Repeat("b", 2000)))
	huge := patched(whole, func(hdr []byte) { copy(hdr[124:], "777777777777") })
	negative := patched(whole, func(hdr []byte) { copy(hdr[124:], bytes.Repeat([]byte{0xff}, 12)) })
	pax := patched(layerTar(t, file("a", "2000000 x="+strings.Repeat("x", 2<<20))), func(hdr []byte) { hdr[156] = tar.TypeXHeader })
	for name, data := range map[string][]byte{
		"cut in a header": whole[:1300], "cut in content": whole[:len(whole)-2048],
		"size is negative": negative, "checksum is wrong": bytes.Replace(whole, []byte("a"), []byte("b"), 1), "PAX record is huge": pax,
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			_, err := s.Import(t.Context(), "x", archiveFile(t, "x", packed{data, data, types.OCIUncompressedLayer}), nil)
			wantCode(t, err, CodeSourceInvalid)
			wantContents(t, s, 0, 0)
		})
	}
	s := openStore(t, Options{})
	_, err := s.Import(t.Context(), "x", archiveFile(t, "x", packed{huge, huge, types.OCIUncompressedLayer}), nil)
	wantCode(t, err, CodeTooLarge)
}
