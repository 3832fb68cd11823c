package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/volcano-sh/agentcube/api/audit"
)

const (
	namePrefix = "audit-"
	nameSuffix = ".jsonl"
)

// segment is one file of a record.
type segment struct {
	name  string
	first uint64 // the number of its first line
	size  int64
}

func segmentName(first uint64) string { return fmt.Sprintf("%s%020d%s", namePrefix, first, nameSuffix) }

// segments finds the files of a record, in their order.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("find audit files: %w", err)
	}
	var all []segment
	for _, e := range entries {
		number, isFirst := strings.CutPrefix(e.Name(), namePrefix)
		number, isLast := strings.CutSuffix(number, nameSuffix)
		first, err := strconv.ParseUint(number, 10, 64)
		if !isFirst || !isLast || err != nil || e.Name() != segmentName(first) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been removed
		}
		if err != nil {
			return nil, fmt.Errorf("find audit files: %w", err)
		}
		all = append(all, segment{e.Name(), first, info.Size()})
	}
	return all, nil
}

// tail finds the last whole line of a file, its size up to the end of that, and how
// many bytes follow. A size of 0 means that there is no line.
func tail(f *os.File) (last audit.Line, size, torn int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return last, 0, 0, err
	}
	// Two lines fit, of which one may be torn.
	from := max(0, info.Size()-2*audit.MaxLine)
	text, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return last, 0, 0, err
	}
	end := bytes.LastIndexByte(text, '\n')
	if end < 0 {
		if from > 0 {
			return last, 0, 0, errors.New("its last line is too long")
		}
		return last, 0, info.Size(), nil
	}
	start := bytes.LastIndexByte(text[:end], '\n') + 1
	last, err = audit.ParseLine(text[start:end])
	if err != nil {
		return last, 0, 0, fmt.Errorf("its last line: %w", err)
	}
	size = from + int64(end) + 1
	return last, size, info.Size() - size, nil
}

func firstLine(path string) (audit.Line, error) {
	f, err := os.Open(path)
	if err != nil {
		return audit.Line{}, err
	}
	defer f.Close()
	line, err := audit.ReadLine(audit.NewReader(f))
	if err != nil {
		return line, fmt.Errorf("read %s: %w", path, err)
	}
	return line, nil
}

// Read calls each with every event of the record in a folder, as far as it is sound.
// The error of what is not is an *audit.BrokenError, or one that says which files
// are missing. It may be called while a Log writes: what is being written at this
// moment counts as the end.
func Read(ctx context.Context, dir string, each func(audit.Line, audit.Event) error) (first, last audit.Head, err error) {
	all, err := segments(dir)
	if err != nil || len(all) == 0 {
		return first, last, err
	}
	if all[0].first > 1 {
		line, err := firstLine(filepath.Join(dir, all[0].name))
		if err != nil {
			return first, last, err
		}
		first = audit.Head{Seq: line.Seq - 1, Hash: line.Prev}
	}
	last = first
	for i, s := range all {
		if err := ctx.Err(); err != nil {
			return first, last, err
		}
		if last, err = readFile(filepath.Join(dir, s.name), last, i+1 == len(all), each); err != nil {
			return first, last, err
		}
	}
	return first, last, nil
}

func readFile(path string, h audit.Head, newest bool, each func(audit.Line, audit.Event) error) (audit.Head, error) {
	f, err := os.Open(path)
	if err != nil {
		return h, fmt.Errorf("read audit file: %w", err)
	}
	defer f.Close()
	h, err = audit.Verify(audit.NewReader(f), h, func(l audit.Line) error {
		var e audit.Event
		if err := json.Unmarshal(l.Text, &e); err != nil {
			return fmt.Errorf("%s: line %d: %w", path, l.Seq, err)
		}
		return each(l, e)
	})
	if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
		if newest && errors.Is(err, audit.ErrTorn) {
			return h, nil
		}
		broken.File = path
	}
	return h, err
}
