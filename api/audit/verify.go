package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// BrokenError says where a record stops being what was written.
type BrokenError struct {
	File string // "" if it is not known
	Row  int    // of the file, from 1
	// After is the last head that is sound, as far as the record tells.
	After Head
	Err   error
}

// Error implements error.
func (e *BrokenError) Error() string {
	where := fmt.Sprintf("row %d", e.Row)
	if e.File != "" {
		where = fmt.Sprintf("%s:%d", e.File, e.Row)
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Err }

// Verify reads lines that have to follow h, and returns the head at their end. It
// calls each, unless that is nil, with every line that is sound. An error is a
// *BrokenError, unless it is one of each or of reading.
func Verify(r *bufio.Reader, h Head, each func(Line) error) (Head, error) {
	for row := 1; ; row++ {
		line, err := ReadLine(r)
		if errors.Is(err, io.EOF) {
			return h, nil
		}
		if err == nil {
			err = line.Follows(h)
		}
		if err != nil {
			return h, &BrokenError{Row: row, After: h, Err: err}
		}
		h = line.Head
		if each == nil {
			continue
		}
		if err := each(line); err != nil {
			return h, err
		}
	}
}
