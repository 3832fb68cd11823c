package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// diskReserve is left free on the disk, in bytes: the session store and
// everybody else must be able to go on.
const diskReserve = 256 << 20

// diskRoom is what was promised to snapshots that are being written, in bytes
// by directory. Some of it they have taken already.
type diskRoom struct {
	mu       sync.Mutex
	promised map[string]int64
}

// roomFor refuses a snapshot of a run that would not fit, beside those that are
// being written. It keeps the room for what is written in dir, which exists,
// until free is called or dir has been renamed.
func (d *Driver) roomFor(r *run, dir string) (free func(), err error) {
	return d.reserveDisk(dir, d.groups.memoryUsed(r.id))
}

func (d *Driver) reserveDisk(dir string, need int64) (free func(), err error) {
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	var coming int64
	for other, promised := range d.room.promised {
		written, err := diskUsed(other)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it is complete, or has failed
		case err != nil:
			return nil, err
		default:
			coming += max(promised-written, 0)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.cfg.DataDir, &st); err != nil {
		return nil, fmt.Errorf("look at the disk: %w", err)
	}
	if left := int64(st.Bavail)*st.Bsize - coming; left < need+diskReserve {
		return nil, fmt.Errorf("%w: %d MiB are free, %d are wanted and %d are kept free", sandbox.ErrDiskFull, left>>20, need>>20, int64(diskReserve)>>20)
	}
	if d.cfg.SnapshotBudget > 0 {
		used, err := diskUsed(d.dir, d.snaps, d.templates.dir)
		if err != nil {
			return nil, err
		}
		if used += coming; used+need > d.cfg.SnapshotBudget {
			return nil, fmt.Errorf("%w: %d MiB of %d are used by paused sandboxes and snapshots, %d more are wanted",
				sandbox.ErrDiskFull, used>>20, d.cfg.SnapshotBudget>>20, need>>20)
		}
	}
	if d.room.promised == nil {
		d.room.promised = map[string]int64{}
	}
	d.room.promised[dir] = need
	return func() {
		d.room.mu.Lock()
		defer d.room.mu.Unlock()
		delete(d.room.promised, dir)
	}, nil
}

// diskUsed is what is below directories, which must exist, in bytes on disk.
// Files that several share count once.
func diskUsed(dirs ...string) (total int64, err error) {
	seen := map[uint64]bool{}
	for _, root := range dirs {
		if _, err := os.Stat(root); err != nil {
			return 0, fmt.Errorf("add up snapshots: %w", err)
		}
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return ignoreGone(err)
			}
			info, err := e.Info()
			if err != nil {
				return ignoreGone(err)
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
				seen[st.Ino] = true
				total += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("add up snapshots: %w", err)
		}
	}
	return total, nil
}

// ignoreGone is for walks through directories that others change.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
