package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/state/statefile"
	runsc "gvisor.dev/gvisor/runsc/sandbox"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// snapshot is the state of a sandbox in a directory: gVisor's files, which are
// never changed, and a description. The directory appears as a whole, by a
// rename, when it is complete.
type snapshot struct {
	dir  string
	meta snapshotMeta
}

// snapshotMeta is snapshot.json.
type snapshotMeta struct {
	Version   int       `json:"version"`
	Engine    string    `json:"engine"`
	Frame     frame     `json:"frame"`
	CreatedAt time.Time `json:"createdAt"`
	// Files are gVisor's, by name.
	Files map[string]fileMeta `json:"files"`
}

type fileMeta struct {
	Size int64 `json:"size"`
	// CRC32C finds damage; whoever could change the file on purpose could
	// change the description too. It is added a moment after the file was written,
	// and not at all to snapshots for one moment.
	CRC32C *uint32 `json:"crc32c,omitempty"`
}

func (m fileMeta) String() string {
	if m.CRC32C == nil {
		return fmt.Sprintf("%d bytes", m.Size)
	}
	return fmt.Sprintf("%d bytes with sum %08x", m.Size, *m.CRC32C)
}

const (
	snapshotVersion = 1
	metaFile        = "snapshot.json"
	// partial begins the names of directories that are being written.
	partial = ".partial-"
)

// errDamaged is about a snapshot that is not what was written.
var errDamaged = errors.New("snapshot is damaged")

// errForeign is about a snapshot that this program, or this machine, cannot restore.
var errForeign = errors.New("snapshot was made by another version or on another machine")

// writeSnapshot makes the snapshot dir of what a run is at this moment; the run
// goes on. There is a moment at the end when it goes on and the snapshot is
// not complete yet. A small one takes longer to write: all memory is searched for
// pages of zeros, and not only what the guest may have written to.
func (d *Driver) writeSnapshot(r *run, dir string, small bool) (_ *snapshot, err error) {
	tmp := filepath.Join(filepath.Dir(dir), partial+filepath.Base(dir))
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, diskError("make snapshot", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	free, err := d.roomFor(r, tmp)
	if err != nil {
		return nil, err
	}
	defer free()
	cont, conf, err := r.container(d.cfg.Platform)
	if err != nil {
		return nil, err
	}
	err = cont.Checkpoint(conf, tmp, runsc.CheckpointOpts{
		Compression: statefile.CompressionLevelNone, Resume: true, ExcludeCommittedZeroPages: small,
	})
	if err != nil {
		return nil, diskError("save gVisor sandbox", err)
	}
	s, err := finishSnapshot(tmp, dir, snapshotMeta{
		Version: snapshotVersion, Engine: d.engine, Frame: r.frame, CreatedAt: time.Now().UTC(),
	})
	if err == nil {
		d.sums.trust(s)
	}
	return s, err
}

// finishSnapshot describes the files in tmp and gives them their name.
func finishSnapshot(tmp, dir string, meta snapshotMeta) (*snapshot, error) {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return nil, fmt.Errorf("describe snapshot: %w", err)
	}
	meta.Files = map[string]fileMeta{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("describe snapshot: %w", err)
		}
		meta.Files[e.Name()] = fileMeta{Size: info.Size()}
	}
	if err := writeJSON(filepath.Join(tmp, metaFile), meta); err != nil {
		return nil, diskError("describe snapshot", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, fmt.Errorf("name snapshot: %w", err)
	}
	return &snapshot{dir: dir, meta: meta}, nil
}

// loadSnapshot reads the description of a snapshot; the files themselves are
// looked at by sums.check.
func (d *Driver) loadSnapshot(dir string) (*snapshot, error) {
	data, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	s := &snapshot{dir: dir}
	if err := json.Unmarshal(data, &s.meta); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if s.meta.Version != snapshotVersion || s.meta.Engine != d.engine {
		return nil, errForeign
	}
	for _, path := range []string{s.meta.Frame.ImagePath, s.meta.Frame.AgentPath} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: %w", errForeign, err)
		}
	}
	return s, nil
}

// size is what the snapshot takes on disk, in bytes.
func (s *snapshot) size() (n int64) {
	for _, f := range s.meta.Files {
		n += f.Size
	}
	return n
}

// link makes another snapshot of the same files, which are not copied.
func (s *snapshot) link(dir string) (*snapshot, error) {
	tmp := filepath.Join(filepath.Dir(dir), partial+filepath.Base(dir))
	err := os.RemoveAll(tmp)
	if err == nil {
		err = os.MkdirAll(tmp, 0o700)
	}
	for name := range s.meta.Files {
		if err == nil {
			err = os.Link(filepath.Join(s.dir, name), filepath.Join(tmp, name))
		}
	}
	if err == nil {
		err = writeJSON(filepath.Join(tmp, metaFile), s.meta)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return nil, diskError("copy snapshot", errors.Join(err, os.RemoveAll(tmp)))
	}
	return &snapshot{dir: dir, meta: s.meta}, nil
}

// diskError finds out whether the disk, or its quota, was full. gVisor's
// errors come from another process, as text.
func diskError(what string, err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return fmt.Errorf("%s: %w: %w", what, sandbox.ErrDiskFull, err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
