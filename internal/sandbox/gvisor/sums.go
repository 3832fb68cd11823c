package gvisor

import (
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sums knows which files of snapshots are as they were written. Reading one
// takes as long as half of a restore, so that what this process has just written,
// or read and found well, is not read again while nothing has touched it.
type sums struct {
	mu   sync.Mutex
	seen map[fileID]fileState
}

type fileID struct{ dev, ino uint64 }

// fileState is what a file was when it was written, or read, and well.
type fileState struct {
	size  int64
	mtime unix.Timespec
	at    time.Time
}

// sumTrust is how long a file is taken for what it was when it was last read or
// written: what was in memory then may come from the disk later.
const sumTrust = 15 * time.Minute

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// measure reads a file and returns its size and sum.
func measure(path string) (fileMeta, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileMeta{}, err
	}
	defer f.Close()
	sum := crc32.New(castagnoli)
	n, err := io.CopyBuffer(onlyWriter{sum}, f, make([]byte, 1<<20))
	crc := sum.Sum32()
	return fileMeta{Size: n, CRC32C: &crc}, err
}

// onlyWriter keeps io.CopyBuffer from doing without the buffer.
type onlyWriter struct{ io.Writer }

func stat(path string) (fileID, fileState, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}, fileState{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{dev: st.Dev, ino: st.Ino}, fileState{size: st.Size, mtime: st.Mtim, at: time.Now()}, nil
}

// trust notes that the files of a snapshot are as they should be.
func (s *sums) trust(snap *snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, was := range s.seen {
		if time.Since(was.at) > sumTrust {
			delete(s.seen, id)
		}
	}
	for name := range snap.meta.Files {
		if id, now, err := stat(filepath.Join(snap.dir, name)); err == nil {
			s.seen[id] = now
		}
	}
}

// look compares a file with what it was when it was well: known is false when that
// is not known, or too long ago.
func (s *sums) look(path string) (same, known bool, err error) {
	id, now, err := stat(path)
	if err != nil {
		return false, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.seen[id]
	if !ok || time.Since(was.at) > sumTrust {
		return false, false, nil
	}
	return was.size == now.size && was.mtime == now.mtime, true, nil
}

// check compares the files of a snapshot with what was written.
func (s *sums) check(snap *snapshot) error {
	for name, want := range snap.meta.Files {
		path := filepath.Join(snap.dir, name)
		same, known, err := s.look(path)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errDamaged, err)
		case same:
			continue
		case known && want.CRC32C == nil:
			return fmt.Errorf("%w: %s was changed", errDamaged, name)
		}
		if err := checkFile(path, want); err != nil {
			return err
		}
	}
	s.trust(snap)
	return nil
}

func checkFile(path string, want fileMeta) error {
	got, err := measure(path)
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	// Without a sum the size has to do: the snapshot was for this moment, or there was
	// no room to write one.
	if got.Size != want.Size || want.CRC32C != nil && *got.CRC32C != *want.CRC32C {
		return fmt.Errorf("%w: %s has %s, not %s", errDamaged, filepath.Base(path), got, want)
	}
	return nil
}

// add reads the files of a new snapshot, and adds the sums to its description.
func (s *sums) add(snap *snapshot) error {
	meta := snap.meta
	meta.Files = map[string]fileMeta{}
	for name := range snap.meta.Files {
		path := filepath.Join(snap.dir, name)
		var err error
		if meta.Files[name], err = measure(path); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(snap.dir, metaFile), meta)
}
