package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// documents are files in memory.
type documents map[string]string

func (d documents) open(name string) (io.ReadCloser, int64, error) {
	text, ok := d[name]
	if !ok {
		return nil, 0, fmt.Errorf("open %q: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
}

func (documents) close() error { return nil }

// put adds a document and returns a replacer that names it: its digest and size.
func (d documents) put(name, text string) *strings.Replacer {
	sum := sha256.Sum256([]byte(text))
	d["blobs/sha256/"+hex.EncodeToString(sum[:])] = text
	return strings.NewReplacer("{"+name+"}", "sha256:"+hex.EncodeToString(sum[:]), `"{`+name+`-size}"`, strconv.Itoa(len(text)))
}

// FuzzDocuments: of an index, a manifest and a configuration that say what they like
// either nothing is taken, for a reason that has a code, or what fits together.
func FuzzDocuments(f *testing.F) {
	const layer = `{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:` + "0000000000000000000000000000000000000000000000000000000000000000" + `","size":1}`
	index := `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{m}","size":"{m-size}"}]}`
	manifest := `{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{c}","size":"{c-size}"},"layers":[` + layer + `]}`
	config := `{"os":"linux","architecture":"` + runtime.GOARCH + `","rootfs":{"diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]}}`
	docker := `[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l"]}]`
	f.Add(index, manifest, config, "")
	f.Add("", "", config, docker)
	f.Add(index, `{}`, `{}`, "")
	f.Add(strings.Replace(index, "manifest.v1", "index.v1", 1), index, config, "")
	f.Add(index, strings.Replace(manifest, `"size":1`, `"size":-1`, 1), config, "")
	f.Add(index, strings.Replace(manifest, `"size":1`, `"size":9223372036854775807`, 1), config, "")
	f.Add(`{"manifests":[{"digest":"sha256:../../etc/passwd"}]}`, `{"config":{"digest":"md5:00"}}`, `null`, `[{"Config":"../c","Layers":["../l","/l"]}]`)
	s := New(Options{Dir: f.TempDir()})
	f.Fuzz(func(t *testing.T, index, manifest, config, docker string) {
		set := documents{"c.json": config, "l": "x"}
		manifest = set.put("c", config).Replace(manifest)
		index = set.put("m", manifest).Replace(index)
		if index != "" {
			set["index.json"] = index
		}
		if docker != "" {
			set["manifest.json"] = docker
		}
		b, err := s.bundleOf(set, "localhost/x:latest")
		if err != nil {
			if CodeOf(err) == "" {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		if n := len(b.man.Layers); n != len(b.cfg.RootFS.DiffIDs) || n > s.limits.Layers {
			t.Errorf("%d layers, %d of them in the configuration", n, len(b.cfg.RootFS.DiffIDs))
		}
		total := int64(0)
		for i, l := range b.man.Layers {
			if total += l.Size; l.Size < 0 || total > s.limits.BlobBytes || total < 0 {
				t.Errorf("layer of %d bytes, %d in all", l.Size, total)
			}
			if r, err := b.open(t.Context(), i); err == nil {
				r.Close()
			}
		}
	})
}

// FuzzArchive: an archive of whatever bytes is refused with a code, or has members
// that lie within it.
func FuzzArchive(f *testing.F) {
	f.Add(layerTar(f, file("index.json", "{}"), file("oci-layout", "{}")))
	f.Add(layerTar(f, file("manifest.json", "[]"), symlink("l", "manifest.json"), symlink("m", "m")))
	f.Add(layerTar(f, file("../index.json", "{}"), file("/x", ""), dir("d")))
	f.Add(layerTar(f, file("a", "1"), file("./a", "2")))
	f.Add(patched(layerTar(f, file("x", "")), func(h []byte) { h[156] = 'S' }))
	f.Add(patched(layerTar(f, file("x", "")), func(h []byte) { copy(h[124:], "77777777777\x00") }))
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0})
	f.Add([]byte{})
	s := New(Options{Dir: f.TempDir()})
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		archive, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		set := &tarFiles{f: archive, members: map[string]member{}}
		defer set.close()
		if err := set.index(t.Context()); err != nil {
			if err = classify(err, CodeSourceInvalid, "read image archive"); CodeOf(err) == "" {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		for name := range set.members {
			r, size, err := set.open(name)
			if err != nil {
				continue
			}
			got, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			if err != nil || got > int64(len(data)) || size < 0 {
				t.Errorf("%q has %d bytes, %d were read, %v", name, size, got, err)
			}
		}
		if _, err := s.bundleOf(set, "localhost/x:latest"); err != nil && CodeOf(err) == "" {
			t.Errorf("error without a code: %v", err)
		}
		if !bytes.Contains(data, []byte("index.json")) && len(set.members) > len(data)/512 {
			t.Errorf("%d members in %d bytes", len(set.members), len(data))
		}
	})
}
