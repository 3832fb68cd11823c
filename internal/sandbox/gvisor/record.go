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

// record is what is on disk about a sandbox. It is written when the sandbox
// answers, and whenever it is paused or resumed; a sandbox without one never was.
type record struct {
	Version   int               `json:"version"`
	ID        string            `json:"id"`
	CreatedAt time.Time         `json:"createdAt"`
	Labels    map[string]string `json:"labels,omitempty"`
	Frame     frame             `json:"frame"`
	// Engine is what the sandbox's state can be restored by.
	Engine string `json:"engine"`
	// At is where it runs; nil while it is paused.
	At *place `json:"at,omitempty"`
}

const recordVersion = 2

func (r record) save(dir string) error { return writeJSON(filepath.Join(dir, "record.json"), r) }

// writeJSON replaces a file as a whole.
func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
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
	if r.Version != recordVersion {
		return r, fmt.Errorf("decode record: version %d, want %d", r.Version, recordVersion)
	}
	return r, nil
}
