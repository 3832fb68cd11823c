package ociwrite

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layer is one finished layer of an image.
type Layer struct {
	// Path is the file that holds the layer as it is stored in the image.
	Path string
	// MediaType says how the file is compressed.
	MediaType types.MediaType
	// Digest and Size are those of the file; DiffID is the digest of the
	// uncompressed tar stream.
	Digest v1.Hash
	Size   int64
	DiffID v1.Hash
}

// Archive is what WriteArchive packs.
type Archive struct {
	// Name is the image's reference, for example "agentcube/python:latest".
	Name string
	// Created is the image's creation time and the time of every archive member.
	Created time.Time
	// OS and Architecture are the platform in Go's words, for example linux, amd64.
	OS, Architecture string
	// Config is what the image says about running it.
	Config v1.Config
	// Layers, the lowest first.
	Layers []Layer
}

// GzipLayer writes the tree at dir to file as a gzip-compressed layer.
// The caller removes the file, also after an error.
func GzipLayer(ctx context.Context, file, dir string, opts TarOptions) (Layer, error) {
	f, err := os.Create(file)
	if err != nil {
		return Layer{}, fmt.Errorf("create layer: %w", err)
	}
	defer f.Close()
	blob := &countHash{w: f, h: sha256.New()}
	gz := gzip.NewWriter(blob)
	plain := sha256.New()
	if err := TarDir(ctx, io.MultiWriter(gz, plain), dir, opts); err != nil {
		return Layer{}, err
	}
	if err := gz.Close(); err != nil {
		return Layer{}, fmt.Errorf("compress layer: %w", err)
	}
	if err := f.Close(); err != nil {
		return Layer{}, fmt.Errorf("close layer: %w", err)
	}
	return Layer{
		Path: file, MediaType: types.OCILayer,
		Digest: sha256Hash(blob.h), Size: blob.n, DiffID: sha256Hash(plain),
	}, nil
}

// Documents returns the configuration and the manifest of the image, as JSON,
// and the digest of each.
func (a Archive) Documents() (config, manifest []byte, configDigest, manifestDigest v1.Hash, err error) {
	created := v1.Time{Time: a.Created.UTC()}
	cf := v1.ConfigFile{
		Architecture: a.Architecture, OS: a.OS, Created: created, Config: a.Config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	for _, l := range a.Layers {
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, l.DiffID)
		cf.History = append(cf.History, v1.History{Created: created, CreatedBy: "agentcube"})
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	if config, err = json.Marshal(cf); err != nil {
		return nil, nil, v1.Hash{}, v1.Hash{}, fmt.Errorf("encode config: %w", err)
	}
	configDigest = digestOf(config)
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: configDigest, Size: int64(len(config))}
	if manifest, err = json.Marshal(m); err != nil {
		return nil, nil, v1.Hash{}, v1.Hash{}, fmt.Errorf("encode manifest: %w", err)
	}
	return config, manifest, configDigest, digestOf(manifest), nil
}

// WriteArchive writes a as an OCI archive to w.
func WriteArchive(ctx context.Context, w io.Writer, a Archive) error {
	config, manifest, configDigest, manifestDigest, err := a.Documents()
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Digest: manifestDigest, Size: int64(len(manifest)),
			Platform: &v1.Platform{OS: a.OS, Architecture: a.Architecture},
			Annotations: map[string]string{
				"org.opencontainers.image.ref.name": a.Name,
				"io.containerd.image.name":          a.Name,
			},
		}},
	})
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	aw := archiveWriter{tw: tar.NewWriter(w), time: time.Unix(a.Created.Unix(), 0), seen: map[v1.Hash]bool{}}
	aw.bytes("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	aw.bytes("index.json", index)
	aw.blob(manifestDigest, int64(len(manifest)), bytes.NewReader(manifest))
	aw.blob(configDigest, int64(len(config)), bytes.NewReader(config))
	for _, l := range a.Layers {
		aw.file(ctx, l)
	}
	if aw.err != nil {
		return fmt.Errorf("write archive: %w", aw.err)
	}
	if err := aw.tw.Close(); err != nil {
		return fmt.Errorf("finish archive: %w", err)
	}
	return nil
}

// archiveWriter keeps the first error, so that its callers need not.
type archiveWriter struct {
	tw   *tar.Writer
	time time.Time
	seen map[v1.Hash]bool
	err  error
}

func (a *archiveWriter) bytes(name string, data []byte) {
	a.member(name, int64(len(data)), bytes.NewReader(data))
}

func (a *archiveWriter) blob(digest v1.Hash, size int64, r io.Reader) {
	if !a.seen[digest] {
		a.seen[digest] = true
		a.member(path.Join("blobs", digest.Algorithm, digest.Hex), size, r)
	}
}

func (a *archiveWriter) file(ctx context.Context, l Layer) {
	f, err := os.Open(l.Path)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	a.blob(l.Digest, l.Size, ctxReader{ctx, f})
}

func (a *archiveWriter) member(name string, size int64, r io.Reader) {
	if a.err != nil {
		return
	}
	hdr := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: a.time}
	if a.err = a.tw.WriteHeader(hdr); a.err != nil {
		return
	}
	_, a.err = io.Copy(a.tw, r)
}

type countHash struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (c *countHash) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.h.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func sha256Hash(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
