package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Import brings an image into the store from a file or directory: an OCI
// archive or an archive of `docker save` (plain, gzip or zstd), an OCI layout,
// or a directory that is a root filesystem. It gets the name ref, taking it
// from any other image; an empty ref means the name that the source gives.
//
// The image appears complete, its EROFS file built, or not at all. Importing
// the same source again is cheap and gives the same digest. Files are trusted
// only as far as Limits and the package comment say.
func (s *Store) Import(ctx context.Context, ref, source string, progress ProgressFunc) (Image, error) {
	if ref != "" {
		norm, err := tagReference(ref)
		if err != nil {
			return Image{}, err
		}
		ref = norm
	}
	return s.bringIn(ctx, ref, newMeter(progress), func(w *work, m *meter) (*bundle, error) {
		return s.openSource(ctx, w, source, ref, m)
	})
}

// bringIn stages what fetch finds, builds its EROFS file and publishes both.
func (s *Store) bringIn(ctx context.Context, ref string, m *meter, fetch func(*work, *meter) (*bundle, error)) (img Image, err error) {
	w, err := s.newWork(ctx)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	b, err := fetch(w, m)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if ref == "" {
		if b.name == "" {
			return Image{}, &Error{Code: CodeReferenceInvalid, Text: "the source does not name its image", Hint: "give a name like name:tag"}
		}
		if ref, err = tagReference(b.name); err != nil {
			return Image{}, err
		}
	}
	staged, err := s.stage(ctx, w, b, m)
	if err != nil {
		return Image{}, err
	}
	build, err := lockFile(ctx, s.path("build.lock"))
	if err != nil {
		return Image{}, err
	}
	defer build.Close()
	if _, err := os.Stat(s.rootfsPath(hexOf(staged.rec.Digest))); errors.Is(err, fs.ErrNotExist) {
		if staged.rootfs, err = s.buildRootfs(ctx, w, staged.layers, m); err != nil {
			return Image{}, err
		}
	}
	return s.publish(ctx, ref, staged)
}

// staged is an image in a work directory, ready to be moved into the store.
type staged struct {
	rec    *record
	blobs  map[string]string // hexadecimal digest → path
	layers []layerFile
	rootfs string // path of the EROFS file; empty when the store has it
}

func (s *Store) stage(ctx context.Context, w *work, b *bundle, m *meter) (*staged, error) {
	manifest, _, err := v1.SHA256(bytes.NewReader(b.manifest))
	if err != nil {
		return nil, fmt.Errorf("hash manifest: %w", err)
	}
	st := &staged{blobs: map[string]string{}, rec: &record{
		Digest: manifest.String(), Created: b.cfg.Created.Time, Imported: time.Now().UTC().Truncate(time.Second),
		Config: Config{Env: b.cfg.Config.Env, Entrypoint: b.cfg.Config.Entrypoint, Cmd: b.cfg.Config.Cmd,
			WorkingDir: b.cfg.Config.WorkingDir, User: b.cfg.Config.User},
	}}
	for h, data := range map[v1.Hash][]byte{manifest: b.manifest, b.man.Config.Digest: b.config} {
		p := w.path(h.Hex)
		if err := writeFileSync(p, data, 0o400); err != nil {
			return nil, classify(err, CodeStoreCorrupt, "store document")
		}
		st.blobs[h.Hex] = p
	}
	for _, l := range b.man.Layers {
		st.rec.BlobBytes += l.Size
	}
	m.begin("fetch", st.rec.BlobBytes)
	for i, l := range b.man.Layers {
		p := w.path(l.Digest.Hex)
		if _, have := st.blobs[l.Digest.Hex]; !have {
			if err := s.stageLayer(ctx, p, b, i, m); err != nil {
				return nil, fmt.Errorf("layer %d: %w", i+1, err)
			}
			st.blobs[l.Digest.Hex] = p
		}
		st.layers = append(st.layers, layerFile{path: p, size: l.Size, diffID: b.cfg.RootFS.DiffIDs[i]})
	}
	return st, nil
}

// stageLayer puts layer i at path p: a link to the store's copy, or a new one.
func (s *Store) stageLayer(ctx context.Context, p string, b *bundle, i int, m *meter) error {
	l := b.man.Layers[i]
	if have, err := s.linkBlob(ctx, p, l, m); have || err != nil {
		return err
	}
	r, err := b.open(ctx, i)
	if errors.Is(err, fs.ErrNotExist) {
		return errorf(CodeSourceInvalid, "image is incomplete: %s is not in it", l.Digest)
	}
	if err != nil {
		return classify(err, CodeSourceInvalid, "open layer")
	}
	defer r.Close()
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return classify(err, CodeStoreCorrupt, "store layer")
	}
	defer f.Close()
	sum := newDigester(f)
	// One byte more than promised is enough to see that the size is wrong.
	if _, err := io.Copy(sum, m.reader(ctx, io.LimitReader(r, l.Size+1))); err != nil {
		return classify(err, CodeSourceInvalid, "store layer")
	}
	if got := sum.hash(); sum.n != l.Size || got != l.Digest {
		return errorf(CodeDigestMismatch, "layer %s of %d bytes is in truth %s of %d bytes", l.Digest, l.Size, got, sum.n)
	}
	return classify(f.Sync(), CodeStoreCorrupt, "sync layer")
}

// linkBlob takes the store's copy of a layer, unless it is missing or damaged.
func (s *Store) linkBlob(ctx context.Context, p string, l v1.Descriptor, m *meter) (bool, error) {
	if os.Link(s.blobPath(l.Digest.Hex), p) != nil {
		return false, nil
	}
	f, err := os.Open(p)
	if err != nil {
		return false, classify(err, CodeStoreCorrupt, "open stored layer")
	}
	defer f.Close()
	got, n, err := v1.SHA256(meterReader{ctx: ctx, r: f})
	if err != nil {
		return false, classify(err, CodeStoreCorrupt, "read stored layer")
	}
	if got == l.Digest && n == l.Size {
		m.add(n)
		return true, nil
	}
	return false, classify(os.Remove(p), CodeStoreCorrupt, "put damaged layer aside")
}

// publish moves a staged image into the store and gives it its name. Until the
// index is replaced the moved files belong to no image, and Open removes them.
func (s *Store) publish(ctx context.Context, ref string, st *staged) (Image, error) {
	var img Image
	err := s.locked(ctx, func(ix *index) error {
		if st.rootfs != "" {
			if err := os.Rename(st.rootfs, s.rootfsPath(hexOf(st.rec.Digest))); err != nil {
				return classify(err, CodeStoreCorrupt, "publish EROFS file")
			}
		}
		rec := ix.byDigest(st.rec.Digest)
		for h, p := range st.blobs {
			if rec != nil && h == hexOf(rec.Digest) {
				continue // the manifest that is there may be locked by Hold
			}
			if err := os.Rename(p, s.blobPath(h)); err != nil {
				return classify(err, CodeStoreCorrupt, "publish blob")
			}
		}
		if err := errors.Join(syncDir(s.path("blobs")), syncDir(s.path("rootfs"))); err != nil {
			return classify(err, CodeStoreCorrupt, "sync image store")
		}
		if rec == nil {
			rec = st.rec
			ix.Images = append(ix.Images, rec)
		}
		ix.tag(rec, ref)
		if err := s.writeIndex(ix); err != nil {
			return err
		}
		img = s.image(rec)
		return nil
	})
	return img, err
}

// List returns all images, the last imported first.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	var images []Image
	err := s.locked(ctx, func(ix *index) error {
		for _, rec := range ix.Images {
			images = append(images, s.image(rec))
		}
		return nil
	})
	slices.SortStableFunc(images, func(a, b Image) int { return b.Imported.Compare(a.Imported) })
	return images, err
}

// Get returns the image with the name or digest. Errors have CodeNotFound or
// CodeReferenceInvalid.
func (s *Store) Get(ctx context.Context, ref string) (Image, error) {
	norm, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	var img Image
	err = s.locked(ctx, func(ix *index) error {
		rec := ix.find(norm)
		if rec == nil {
			return notFound(norm)
		}
		img = s.image(rec)
		return nil
	})
	return img, err
}

func notFound(ref string) error {
	return &Error{Code: CodeNotFound, Text: fmt.Sprintf("image %q is not in the store", clip(ref)),
		Hint: "agentcube image ls shows what is; agentcube image import or pull brings it in"}
}

// Build returns the image with its EROFS file, which it makes if the store has
// none for its agent. Errors are those of Get and Import.
func (s *Store) Build(ctx context.Context, ref string, progress ProgressFunc) (Image, error) {
	img, err := s.Get(ctx, ref)
	if err != nil || img.RootfsPath != "" {
		return img, err
	}
	build, err := lockFile(ctx, s.path("build.lock"))
	if err != nil {
		return Image{}, err
	}
	defer build.Close()
	// Somebody else may have built it, or deleted the image, in the meantime.
	if img, err = s.Get(ctx, img.Digest); err != nil || img.RootfsPath != "" {
		return img, err
	}
	release, err := s.Hold(ctx, img.Digest)
	if err != nil {
		return Image{}, err
	}
	defer release()
	return s.rebuild(ctx, img, newMeter(progress))
}

func (s *Store) rebuild(ctx context.Context, img Image, m *meter) (_ Image, err error) {
	layers, err := s.layersOf(img.Digest)
	if err != nil {
		return Image{}, err
	}
	w, err := s.newWork(ctx)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	rootfs, err := s.buildRootfs(ctx, w, layers, m)
	if err != nil {
		return Image{}, err
	}
	if err := os.Rename(rootfs, s.rootfsPath(hexOf(img.Digest))); err != nil {
		return Image{}, classify(err, CodeStoreCorrupt, "publish EROFS file")
	}
	if err := syncDir(s.path("rootfs")); err != nil {
		return Image{}, classify(err, CodeStoreCorrupt, "sync image store")
	}
	return s.Get(ctx, img.Digest)
}

func (s *Store) layersOf(digest string) ([]layerFile, error) {
	m, err := s.manifestOf(digest)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(s.blobPath(m.Config.Digest.Hex))
	if err != nil {
		return nil, classify(err, CodeStoreCorrupt, "read configuration of stored image")
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil || len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		return nil, &Error{Code: CodeStoreCorrupt, Text: "read configuration of stored image", Cause: err, Hint: "import the image again"}
	}
	var layers []layerFile
	for i, l := range m.Layers {
		layers = append(layers, layerFile{path: s.blobPath(l.Digest.Hex), size: l.Size, diffID: cfg.RootFS.DiffIDs[i]})
	}
	return layers, nil
}

// Rootfs returns what drivers ask for: the image's EROFS file, built if need be, and
// what the image declares.
func (s *Store) Rootfs(ctx context.Context, ref string) (sandbox.Image, error) {
	img, err := s.Build(ctx, ref, nil)
	return sandbox.Image{
		Rootfs: img.RootfsPath, Env: img.Config.Env,
		Entrypoint: img.Config.Entrypoint, Cmd: img.Config.Cmd, WorkingDir: img.Config.WorkingDir,
	}, err
}

// Hold keeps an image and its EROFS files from being deleted, by any process,
// until release is called or this process ends. Errors are those of Get.
func (s *Store) Hold(ctx context.Context, ref string) (release func(), err error) {
	norm, err := Normalize(ref)
	if err != nil {
		return nil, err
	}
	err = s.locked(ctx, func(ix *index) error {
		rec := ix.find(norm)
		if rec == nil {
			return notFound(norm)
		}
		f, err := os.Open(s.blobPath(hexOf(rec.Digest)))
		if err != nil {
			return classify(err, CodeStoreCorrupt, "hold image")
		}
		if err := tryLock(f, unix.LOCK_SH); err != nil {
			return errors.Join(err, f.Close())
		}
		release = func() { f.Close() }
		return nil
	})
	return release, err
}
