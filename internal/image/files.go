package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// dirFiles are the files below a directory; links that leave it are not followed.
type dirFiles struct{ root *os.Root }

func openDir(dir string) (files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return dirFiles{root}, nil
}

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errorf(CodeSourceInvalid, "%s is not a regular file", clip(name))
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (d dirFiles) close() error { return d.root.Close() }

// tarFiles are the members of an uncompressed tar file, read in place.
type tarFiles struct {
	f       *os.File
	members map[string]member
}

type member struct {
	offset, size int64
	link         string // the member this one stands for, in old docker archives
}

// maxMembers is more than an image of 127 layers can need in any format.
const maxMembers = 10_000

// openTar indexes the archive at path, decompressing it into w first if need be.
func (s *Store) openTar(ctx context.Context, w *work, path string, progress *meter) (files, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, classify(err, CodeSourceInvalid, "open image archive")
	}
	if f, err = s.plainTar(ctx, w, f, progress); err != nil {
		return nil, err
	}
	t := &tarFiles{f: f, members: map[string]member{}}
	if err := t.index(ctx); err != nil {
		return nil, errors.Join(classify(err, CodeSourceInvalid, "read image archive"), f.Close())
	}
	return t, nil
}

// plainTar returns f, or a decompressed copy of it in place of it.
func (s *Store) plainTar(ctx context.Context, w *work, f *os.File, progress *meter) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	plain, compressed, err := decompress(f)
	if err != nil {
		return nil, errors.Join(classify(err, CodeSourceInvalid, "read image archive"), f.Close())
	}
	defer plain.Close()
	if !compressed {
		_, err := f.Seek(0, io.SeekStart)
		return f, err
	}
	defer f.Close()
	out, err := os.Create(w.path("archive.tar"))
	if err != nil {
		return nil, classify(err, CodeSourceInvalid, "decompress image archive")
	}
	limit := &limitReader{r: plain, left: s.limits.ratioLimit(info.Size(), s.limits.BlobBytes)}
	progress.begin("fetch", 0)
	if _, err := io.Copy(out, progress.reader(ctx, limit)); err != nil {
		return nil, errors.Join(classify(err, CodeSourceInvalid, "decompress image archive"), out.Close())
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

func (t *tarFiles) index(ctx context.Context) error {
	tr := tar.NewReader(t.f)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Clean(hdr.Name)
		if hdr.Typeflag == tar.TypeDir {
			continue
		}
		if _, twice := t.members[name]; twice {
			return unsafef(name, "is in the archive twice")
		}
		if len(t.members) == maxMembers {
			return tooLarge("archive has more than %d members", maxMembers)
		}
		m := member{size: hdr.Size}
		switch hdr.Typeflag {
		case tar.TypeReg:
			// The reader takes whole blocks only, so the file stands where the data begins.
			if m.offset, err = t.f.Seek(0, io.SeekCurrent); err != nil {
				return err
			}
		case tar.TypeSymlink:
			m.link = path.Join(path.Dir(name), hdr.Linkname)
		default:
			return unsafef(name, "is neither a file nor a directory")
		}
		t.members[name] = m
	}
}

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	m, ok := t.members[name]
	if ok && m.link != "" {
		m, ok = t.members[m.link]
		ok = ok && m.link == ""
	}
	if !ok {
		return nil, 0, fmt.Errorf("open %q: %w", clip(name), fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(t.f, m.offset, m.size)), m.size, nil
}

func (t *tarFiles) close() error { return t.f.Close() }

// bundleOfDocker reads what `docker save` wrote before it wrote OCI layouts:
// manifest.json names the configuration and the layers. The manifest is ours.
func (s *Store) bundleOfDocker(set files, ref string) (*bundle, error) {
	data, err := s.document(set, "manifest.json")
	if err != nil {
		return nil, err
	}
	type saved struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var images []saved
	if err := json.Unmarshal(data, &images); err != nil {
		return nil, &Error{Code: CodeSourceInvalid, Text: "read manifest.json", Cause: err}
	}
	if len(images) > 1 {
		images = slices.DeleteFunc(images, func(i saved) bool {
			return !slices.ContainsFunc(i.RepoTags, func(t string) bool {
				norm, err := Normalize(t)
				return err == nil && norm == ref
			})
		})
	}
	if len(images) != 1 {
		return nil, &Error{Code: CodeAmbiguous, Text: fmt.Sprintf("archive has %d images called %q", len(images), ref),
			Hint: "save a single image, or import it under the name it has in the archive"}
	}
	img := images[0]
	if len(img.Layers) > s.limits.Layers {
		return nil, tooLarge("image has %d layers, at most %d are allowed", len(img.Layers), s.limits.Layers)
	}
	b := &bundle{}
	if len(img.RepoTags) > 0 {
		b.name = img.RepoTags[0]
	}
	if b.config, err = s.document(set, img.Config); err != nil {
		return nil, incomplete(err, img.Config)
	}
	configHash, size, _ := v1.SHA256(bytes.NewReader(b.config))
	b.man = v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: configHash, Size: size}}
	for _, name := range img.Layers {
		d, err := describeLayer(set, name)
		if err != nil {
			return nil, incomplete(err, name)
		}
		b.man.Layers = append(b.man.Layers, d)
	}
	if b.manifest, err = json.Marshal(b.man); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	b.open = func(_ context.Context, i int) (io.ReadCloser, error) {
		f, _, err := set.open(img.Layers[i])
		return f, err
	}
	return b, s.check(b)
}

func incomplete(err error, name string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errorf(CodeSourceInvalid, "archive is incomplete: %q is not in it", clip(name))
	}
	return err
}

func describeLayer(set files, name string) (v1.Descriptor, error) {
	f, size, err := set.open(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	h, n, err := v1.SHA256(f)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return v1.Descriptor{}, classify(err, CodeSourceInvalid, "read layer")
	}
	return v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: h, Size: size}, nil
}

// digester counts and hashes what passes through it, and fails when that is
// more than most, if most is set.
type digester struct {
	w       io.Writer
	h       hash.Hash
	n, most int64
}

func newDigester(w io.Writer) *digester { return &digester{w: w, h: sha256.New()} }

func (d *digester) Write(p []byte) (int, error) {
	if d.most > 0 && int64(len(p)) > d.most-d.n {
		return 0, tooLarge("content takes more than %d bytes", d.most)
	}
	n, err := d.w.Write(p)
	d.h.Write(p[:n])
	d.n += int64(n)
	return n, err
}

func (d *digester) hash() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(d.h.Sum(nil))}
}
