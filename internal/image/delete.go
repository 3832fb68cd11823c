package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Remove takes the name ref away and, if it was the image's last, deletes the
// image. Given a digest, it deletes the image with all its names. An image that
// is in use is refused with CodeInUse, also when only its last name would go.
func (s *Store) Remove(ctx context.Context, ref string) error {
	norm, err := Normalize(ref)
	if err != nil {
		return err
	}
	return s.locked(ctx, func(ix *index) error {
		rec := ix.find(norm)
		if rec == nil {
			return notFound(norm)
		}
		if rec.Digest != norm && len(rec.References) > 1 {
			rec.References = slices.DeleteFunc(rec.References, func(r string) bool { return r == norm })
			return s.writeIndex(ix)
		}
		used, err := s.inUse(rec.Digest)
		if err != nil {
			return err
		}
		if used {
			return &Error{Code: CodeInUse, Text: fmt.Sprintf("image %q is in use", norm),
				Hint: "delete the sessions that run it, then try again"}
		}
		// The index first: files that belong to no image are found and deleted
		// later, an image without its files would be broken.
		ix.Images = slices.DeleteFunc(ix.Images, func(r *record) bool { return r == rec })
		if err := s.writeIndex(ix); err != nil {
			return err
		}
		_, err = s.sweep(ix, func(string) bool { return true })
		return err
	})
}

// GCReport says what GC deleted.
type GCReport struct {
	// Images, and Files of them and others.
	Images, Files int
	// Bytes of the deleted files.
	Bytes int64
}

// GC deletes images that have no name, EROFS files that were built for another
// agent or by another release, and files that belong to no image; nothing of an
// image that is in use.
func (s *Store) GC(ctx context.Context) (GCReport, error) {
	var report GCReport
	err := s.locked(ctx, func(ix *index) error {
		used := map[string]bool{}
		for _, rec := range ix.Images {
			var err error
			if used[rec.Digest], err = s.inUse(rec.Digest); err != nil {
				return err
			}
		}
		before := len(ix.Images)
		ix.Images = slices.DeleteFunc(ix.Images, func(r *record) bool { return len(r.References) == 0 && !used[r.Digest] })
		if removed := before - len(ix.Images); removed > 0 {
			if err := s.writeIndex(ix); err != nil {
				return err
			}
			report.Images = removed
		}
		current := map[string]bool{}
		for _, rec := range ix.Images {
			current[s.rootfsName(hexOf(rec.Digest))] = true
		}
		swept, err := s.sweep(ix, func(rootfs string) bool {
			return current[rootfs] || used["sha256:"+rootfs[:64]]
		})
		report.Files, report.Bytes = swept.Files, swept.Bytes
		return err
	})
	return report, err
}

// inUse asks the owner's hook and looks for a Hold of any process.
func (s *Store) inUse(digest string) (bool, error) {
	if s.opts.InUse != nil && s.opts.InUse(digest) {
		return true, nil
	}
	f, err := os.Open(s.blobPath(hexOf(digest)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // damaged, and so nobody holds it
	}
	if err != nil {
		return false, classify(err, CodeStoreCorrupt, "look at image")
	}
	defer f.Close()
	err = tryLock(f, unix.LOCK_EX)
	if errors.Is(err, errLocked) {
		return true, nil
	}
	return false, err
}
