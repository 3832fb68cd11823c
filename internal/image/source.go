package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/volcano-sh/agentcube/internal/image/ociwrite"
)

// bundle is one image on its way in: its documents, and its layers to read.
type bundle struct {
	manifest, config []byte
	man              v1.Manifest
	cfg              v1.ConfigFile
	// name is what the source calls the image; empty when it does not say.
	name string
	// open reads layer i as it is stored. Digest and size are checked by the caller.
	open func(ctx context.Context, i int) (io.ReadCloser, error)
	// close frees what open needs.
	close func() error
}

// files is a read-only set of named files: a directory or a tar archive.
type files interface {
	// open returns the file and its size; fs.ErrNotExist when there is none.
	open(name string) (io.ReadCloser, int64, error)
	close() error
}

// openSource finds out what path is and picks the image in it that is for this
// machine and, if there are several, is called ref. Work files go to w.
func (s *Store) openSource(ctx context.Context, w *work, path, ref string, progress *meter) (*bundle, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Code: CodeNotFound, Text: fmt.Sprintf("no image at %q", path), Cause: err}
	}
	if err != nil {
		return nil, classify(err, CodeSourceInvalid, "look at image source")
	}
	var set files
	switch {
	case info.IsDir():
		if set, err = openDir(path); err != nil {
			return nil, classify(err, CodeSourceInvalid, "open image directory")
		}
		if f, _, err := set.open("oci-layout"); err == nil {
			f.Close()
			break
		}
		_ = set.close()
		return s.bundleOfTree(ctx, w, path)
	case info.Mode().IsRegular():
		if set, err = s.openTar(ctx, w, path, progress); err != nil {
			return nil, err
		}
	default:
		return nil, errorf(CodeSourceInvalid, "image source %q is neither a file nor a directory", path)
	}
	b, err := s.bundleOf(set, ref)
	if err != nil {
		return nil, errors.Join(err, set.close())
	}
	b.close = set.close
	return b, nil
}

func (s *Store) bundleOf(set files, ref string) (*bundle, error) {
	b, err := s.bundleOfOCI(set, ref)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = s.bundleOfDocker(set, ref)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Code: CodeSourceInvalid, Text: "source holds no image: neither index.json nor manifest.json is in it",
			Hint: "give an OCI archive, an OCI layout, a docker save archive, or a directory that is a root filesystem"}
	}
	return b, err
}

// document reads a small file whole.
func (s *Store) document(set files, name string) ([]byte, error) {
	f, size, err := set.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, classify(err, CodeSourceInvalid, "open "+clip(name))
	}
	defer f.Close()
	if size > s.limits.Document {
		return nil, tooLarge("%s has %d bytes, at most %d are allowed", clip(name), size, s.limits.Document)
	}
	data, err := io.ReadAll(io.LimitReader(f, s.limits.Document))
	if err != nil {
		return nil, classify(err, CodeSourceInvalid, "read "+clip(name))
	}
	return data, nil
}

// described reads the document that a descriptor promises and checks it.
func (s *Store) described(set files, d v1.Descriptor) ([]byte, error) {
	data, err := s.document(set, blobName(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Code: CodeSourceInvalid, Text: "image is incomplete: " + d.Digest.String() + " is not in it"}
	}
	if err != nil {
		return nil, err
	}
	return data, checkDocument(data, d)
}

func checkDocument(data []byte, d v1.Descriptor) error {
	h, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("hash document: %w", err)
	}
	if h != d.Digest || int64(len(data)) != d.Size {
		return errorf(CodeDigestMismatch, "document %s of %d bytes is in truth %s of %d bytes", d.Digest, d.Size, h, len(data))
	}
	return nil
}

func blobName(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

func (s *Store) bundleOfOCI(set files, ref string) (*bundle, error) {
	data, err := s.document(set, "index.json")
	if err != nil {
		return nil, err
	}
	desc, name, err := s.choose(set, data, ref, 0)
	if err != nil {
		return nil, err
	}
	b := &bundle{name: name}
	if b.manifest, err = s.described(set, desc); err != nil {
		return nil, err
	}
	if err := b.parseManifest(); err != nil {
		return nil, err
	}
	if b.config, err = s.described(set, b.man.Config); err != nil {
		return nil, err
	}
	b.open = func(_ context.Context, i int) (io.ReadCloser, error) {
		f, _, err := set.open(blobName(b.man.Layers[i].Digest))
		return f, err
	}
	return b, s.check(b)
}

// choose picks one image manifest from an index, which may hold indexes.
func (s *Store) choose(set files, data []byte, ref string, depth int) (v1.Descriptor, string, error) {
	var none v1.Descriptor
	var ix v1.IndexManifest
	if err := json.Unmarshal(data, &ix); err != nil {
		return none, "", &Error{Code: CodeSourceInvalid, Text: "read image index", Cause: err}
	}
	var fits []v1.Descriptor
	for _, d := range ix.Manifests {
		if (d.MediaType.IsImage() || d.MediaType.IsIndex()) && platformFits(d.Platform) {
			fits = append(fits, d)
		}
	}
	if len(fits) == 0 {
		return none, "", noPlatform()
	}
	if len(fits) > 1 {
		var named []v1.Descriptor
		for _, d := range fits {
			if norm, err := Normalize(annotatedName(d)); err == nil && norm == ref {
				named = append(named, d)
			}
		}
		if len(named) != 1 {
			return none, "", &Error{Code: CodeAmbiguous, Text: fmt.Sprintf("source has %d images and %d are called %q", len(fits), len(named), ref),
				Hint: "export a single image, or import it under the name it has in the source"}
		}
		fits = named
	}
	chosen := fits[0]
	if chosen.MediaType.IsImage() {
		return chosen, annotatedName(chosen), nil
	}
	if depth == 3 {
		return none, "", errorf(CodeSourceInvalid, "image indexes are nested too deeply")
	}
	inner, err := s.described(set, chosen)
	if err != nil {
		return none, "", err
	}
	d, name, err := s.choose(set, inner, ref, depth+1)
	if name == "" {
		name = annotatedName(chosen)
	}
	return d, name, err
}

func noPlatform() error {
	return errorf(CodePlatformMissing, "source has no image for linux/%s", runtime.GOARCH)
}

func annotatedName(d v1.Descriptor) string {
	if n := d.Annotations["io.containerd.image.name"]; n != "" {
		return n
	}
	// Many tools write only a tag here, which is no name.
	if n := d.Annotations["org.opencontainers.image.ref.name"]; strings.ContainsAny(n, "/:") {
		return n
	}
	return ""
}

func platformFits(p *v1.Platform) bool {
	return p == nil || (p.OS == "linux" || p.OS == "") && (p.Architecture == runtime.GOARCH || p.Architecture == "")
}

func (b *bundle) parseManifest() error {
	if err := json.Unmarshal(b.manifest, &b.man); err != nil {
		return &Error{Code: CodeSourceInvalid, Text: "read image manifest", Cause: err}
	}
	return nil
}

// check holds the documents of b against each other and against the limits.
func (s *Store) check(b *bundle) error {
	if !b.man.Config.MediaType.IsConfig() {
		return &Error{Code: CodeUnsupported, Text: fmt.Sprintf("manifest is of %q, not of a container image", clip(string(b.man.Config.MediaType)))}
	}
	if err := json.Unmarshal(b.config, &b.cfg); err != nil {
		return &Error{Code: CodeSourceInvalid, Text: "read image configuration", Cause: err}
	}
	if !platformFits(&v1.Platform{OS: b.cfg.OS, Architecture: b.cfg.Architecture}) {
		return &Error{Code: CodePlatformMissing, Text: fmt.Sprintf("image is for %s/%s, this machine is linux/%s",
			clip(b.cfg.OS), clip(b.cfg.Architecture), runtime.GOARCH)}
	}
	if len(b.man.Layers) > s.limits.Layers {
		return tooLarge("image has %d layers, at most %d are allowed", len(b.man.Layers), s.limits.Layers)
	}
	if len(b.man.Layers) != len(b.cfg.RootFS.DiffIDs) {
		return errorf(CodeSourceInvalid, "manifest has %d layers, configuration has %d", len(b.man.Layers), len(b.cfg.RootFS.DiffIDs))
	}
	left := s.limits.BlobBytes
	for _, l := range b.man.Layers {
		if !isLayer(l.MediaType) {
			return &Error{Code: CodeUnsupported, Text: fmt.Sprintf("layer is of unknown kind %q", clip(string(l.MediaType)))}
		}
		if l.Size < 0 || l.Size > left {
			return tooLarge("layers take more than %d bytes", s.limits.BlobBytes)
		}
		left -= l.Size
	}
	return nil
}

func isLayer(t types.MediaType) bool {
	switch t {
	case types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer,
		types.DockerLayer, types.DockerUncompressedLayer:
		return true
	}
	return false
}

// bundleOfTree makes an image of one layer from a root filesystem.
func (s *Store) bundleOfTree(ctx context.Context, w *work, dir string) (*bundle, error) {
	f, err := os.Create(w.path("tree.tar"))
	if err != nil {
		return nil, classify(err, CodeSourceInvalid, "write layer")
	}
	defer f.Close()
	h := newDigester(f)
	h.most = s.limits.BlobBytes
	if err := ociwrite.TarDir(ctx, h, dir, ociwrite.TarOptions{}); err != nil {
		return nil, classify(err, CodeSourceInvalid, "read root filesystem")
	}
	b := &bundle{close: func() error { return nil }}
	archive := ociwrite.Archive{
		OS: "linux", Architecture: runtime.GOARCH, Created: time.Unix(0, 0),
		Layers: []ociwrite.Layer{{MediaType: types.OCIUncompressedLayer, Digest: h.hash(), DiffID: h.hash(), Size: h.n}},
	}
	if b.config, b.manifest, _, _, err = archive.Documents(); err != nil {
		return nil, err
	}
	if err := b.parseManifest(); err != nil {
		return nil, err
	}
	b.open = func(context.Context, int) (io.ReadCloser, error) { return os.Open(f.Name()) }
	return b, s.check(b)
}
