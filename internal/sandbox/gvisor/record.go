package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// record is what is on disk about a sandbox. It is written before the process
// is started, with PID 0, and again when the process is known.
type record struct {
	Version   int               `json:"version"`
	ID        string            `json:"id"`
	CreatedAt time.Time         `json:"createdAt"`
	Labels    map[string]string `json:"labels,omitempty"`
	Image     string            `json:"image"`
	// ImagePath is the EROFS file in use.
	ImagePath string `json:"imagePath"`
	// PID and StartTime (clock ticks since boot, field 22 of /proc/PID/stat)
	// name the sentry process; BootID is the boot of the machine it belongs to.
	PID       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"`
	BootID    string `json:"bootId,omitempty"`
	// Socket is gVisor's control socket.
	Socket string `json:"socket,omitempty"`
	// Ready: PicoD has answered once. A sandbox that is not ready when Open
	// finds it belongs to a Create that never returned.
	Ready bool `json:"ready"`
}

const recordVersion = 1

func (r record) save(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	tmp := filepath.Join(dir, ".record.json.tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "record.json")); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// loadRecord returns fs.ErrNotExist when the directory has no record.
func loadRecord(dir string) (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(dir, "record.json"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return r, fs.ErrNotExist
		}
		return r, fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}
