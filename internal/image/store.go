package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Store is a directory of images:
//
//	lock           held while the index changes
//	build.lock     held while an EROFS file is built, one at a time
//	index.json     the images and their names
//	blobs/<hex>    manifests, configurations and layers, by SHA-256
//	rootfs/        EROFS files: <image hex>.<agent>.v<format>.erofs
//	tmp/<random>/  work under way, locked by whoever does it
//
// Its methods may be called from several goroutines and processes at once.
type Store struct {
	opts     Options
	limits   Limits
	log      *slog.Logger
	agentKey string
}

// formatVersion is part of the name of an EROFS file. It goes up when the same
// image and agent would give another file.
const formatVersion = 1

// New returns a store on opts.Dir. Call Open before anything else.
func New(opts Options) *Store {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{opts: opts, limits: opts.Limits.orDefault(), log: log, agentKey: opts.Agent.key()}
}

// Open makes the store's directories where they are missing and removes what
// interrupted work left behind: temporary directories of processes that are
// gone, and files that no image owns. Errors have CodePermission, CodeDiskFull
// or CodeStoreCorrupt.
func (s *Store) Open(ctx context.Context) error {
	for _, dir := range []string{"", "blobs", "rootfs", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.opts.Dir, dir), 0o700); err != nil {
			return classify(err, CodeStoreCorrupt, "make image store")
		}
	}
	return s.locked(ctx, func(ix *index) error {
		if err := errors.Join(s.sweepTemp(), removeIfThere(s.path("index.json.new"))); err != nil {
			return classify(err, CodeStoreCorrupt, "clean image store")
		}
		_, err := s.sweep(ix, func(string) bool { return true })
		return err
	})
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.opts.Dir}, elem...)...)
}

func (s *Store) blobPath(hexDigest string) string { return s.path("blobs", hexDigest) }

func (s *Store) rootfsName(hexDigest string) string {
	return fmt.Sprintf("%s.%s.v%d.erofs", hexDigest, s.agentKey, formatVersion)
}

func (s *Store) rootfsPath(hexDigest string) string {
	return s.path("rootfs", s.rootfsName(hexDigest))
}

// locked runs do with the store's lock and its index.
func (s *Store) locked(ctx context.Context, do func(*index) error) error {
	lock, err := lockFile(ctx, s.path("lock"))
	if err != nil {
		return classify(err, CodeStoreCorrupt, "lock image store")
	}
	defer lock.Close()
	ix, err := readIndex(s.path("index.json"))
	if err != nil {
		return err
	}
	return do(ix)
}

// sweepTemp removes the temporary directories that nobody has locked.
func (s *Store) sweepTemp() error {
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := s.path("tmp", e.Name())
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = tryLock(f, unix.LOCK_EX)
		if err == nil {
			err = os.RemoveAll(dir)
		}
		f.Close()
		if err != nil && !errors.Is(err, errLocked) {
			return err
		}
	}
	return nil
}

// sweep deletes blobs that no image of ix refers to, and EROFS files that have
// no image or that keep does not want. The caller has the lock.
func (s *Store) sweep(ix *index, keep func(rootfsName string) bool) (GCReport, error) {
	var report GCReport
	wanted := map[string]bool{}
	damaged := false
	for _, rec := range ix.Images {
		blobs, err := s.blobsOf(rec)
		if err != nil {
			// Its other blobs are unknown, so none may go until it is removed.
			s.log.Warn("image in store is damaged", "digest", rec.Digest, "error", err)
			damaged = true
		}
		for _, b := range blobs {
			wanted[b] = true
		}
	}
	err := s.sweepDir("blobs", &report, func(name string) bool { return damaged || wanted[name] })
	if err != nil {
		return report, err
	}
	return report, s.sweepDir("rootfs", &report, func(name string) bool {
		image, _, _ := strings.Cut(name, ".")
		return ix.byDigest("sha256:"+image) != nil && keep(name)
	})
}

func (s *Store) sweepDir(dir string, report *GCReport, keep func(name string) bool) error {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return classify(err, CodeStoreCorrupt, "read image store")
	}
	for _, e := range entries {
		if keep(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return classify(err, CodeStoreCorrupt, "read image store")
		}
		if err := os.Remove(s.path(dir, e.Name())); err != nil {
			return classify(err, CodeStoreCorrupt, "delete unused file")
		}
		report.Files++
		report.Bytes += info.Size()
	}
	return nil
}

// work is a temporary directory inside the store, on the same file system as
// what it will become part of.
type work struct {
	dir  string
	lock *os.File
}

func (s *Store) newWork(ctx context.Context) (*work, error) {
	var w *work
	// Under the store's lock, so that no sweep sees the directory before it is locked.
	err := s.locked(ctx, func(*index) error {
		dir, err := os.MkdirTemp(s.path("tmp"), "")
		if err != nil {
			return err
		}
		f, err := os.Open(dir)
		if err == nil {
			err = tryLock(f, unix.LOCK_EX)
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
		w = &work{dir: dir, lock: f}
		return nil
	})
	if err != nil {
		return nil, classify(err, CodeStoreCorrupt, "make work directory")
	}
	return w, nil
}

func (w *work) path(name string) string { return filepath.Join(w.dir, name) }

// close removes the directory with everything in it.
func (w *work) close() error {
	err := os.RemoveAll(w.dir)
	return errors.Join(err, w.lock.Close())
}

// hexOf returns the hexadecimal part of a digest that this package made.
func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func validDigest(digest string) bool {
	h, ok := strings.CutPrefix(digest, "sha256:")
	raw, err := hex.DecodeString(h)
	return ok && err == nil && len(raw) == 32 && h == strings.ToLower(h)
}

// syncDir makes renames into dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
