package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// install copies this program to a path, for a sandbox whose image does not have it:
// whole or not at all, and executable for everybody.
func install(path string) (err error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open program: %w", err)
	}
	defer in.Close()
	part := path + ".part"
	// An earlier attempt may have been killed; what it left cannot be written to.
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove earlier part: %w", err)
	}
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o500)
	if err != nil {
		return fmt.Errorf("make program: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(0o555), out.Close()); err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("put program in place: %w", err)
	}
	return nil
}
