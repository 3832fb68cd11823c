package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// install copies this program to a path, for a sandbox whose image does not have it:
// whole or not at all.
func install(path string) (err error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open program: %w", err)
	}
	defer in.Close()
	part := path + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o555)
	if err != nil {
		return fmt.Errorf("make program: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("put program in place: %w", err)
	}
	return nil
}
