package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens the record in a folder until the test ends, or close is called.
func open(t *testing.T, cfg audit.Config) *audit.Log {
	t.Helper()
	l := audit.New(cfg)
	if err := l.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func closed(t *testing.T, l *audit.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// actions are the actions of a record that has to be whole.
func actions(t *testing.T, dir string) (out []record.Action) {
	t.Helper()
	if _, err := audit.Verify(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	_, _, err := audit.Read(t.Context(), dir, func(_ record.Line, e record.Event) error {
		out = append(out, e.Action)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	for range 2 {
		l := open(t, audit.Config{Dir: dir})
		l.Append(record.Event{Action: record.SessionCreated, Session: "a"})
		if err := audit.New(audit.Config{Dir: dir}).Open(t.Context()); err == nil {
			t.Error("two write to one record")
		}
		closed(t, l)
	}
	want := []record.Action{record.Started, record.SessionCreated, record.Stopped}
	if got := actions(t, dir); !slices.Equal(got, append(want, want...)) {
		t.Errorf("the record holds %v", got)
	}
	info, err := os.Stat(files(t, dir)[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Many write at a time, and the record is cut into files meanwhile.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, audit.Config{Dir: dir, SegmentSize: 4 << 10})
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Append(record.Event{Action: record.Request, Session: fmt.Sprint(w, "/", i)})
				if i%50 == 0 {
					if _, err := audit.Verify(t.Context(), dir); err != nil {
						t.Errorf("while it is written: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	head := l.Head()
	closed(t, l)
	if len(files(t, dir)) < 10 {
		t.Errorf("%d files", len(files(t, dir)))
	}
	report, err := audit.Verify(t.Context(), dir, head)
	if err != nil || report.Events != writers*each+2 {
		t.Errorf("%+v, %v", report, err)
	}
}

// What the end of the process cut off is taken away, and said.
func TestTornEnd(t *testing.T) {
	for name, keep := range map[string]int{"a part of a line": 30, "nothing of the file": 0} {
		dir := t.TempDir()
		l := open(t, audit.Config{Dir: dir})
		closed(t, l)
		file := files(t, dir)[0]
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		torn := append(text, text[:30]...)
		if keep == 0 {
			torn = text[:30]
		}
		if err := os.WriteFile(file, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		closed(t, open(t, audit.Config{Dir: dir}))
		if got := actions(t, dir); !slices.Contains(got, record.Recovered) {
			t.Errorf("%s: the record holds %v", name, got)
		}
	}
}

func TestDamagedEndIsNotContinued(t *testing.T) {
	dir := t.TempDir()
	closed(t, open(t, audit.Config{Dir: dir}))
	f, err := os.OpenFile(files(t, dir)[0], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("rubbish\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := audit.New(audit.Config{Dir: dir}).Open(t.Context()); !errors.Is(err, audit.ErrDamaged) {
		t.Errorf("Open = %v", err)
	}
}

func TestTamperingIsLocated(t *testing.T) {
	write := func(t *testing.T) (dir string, head record.Head) {
		dir = t.TempDir()
		l := open(t, audit.Config{Dir: dir, SegmentSize: 1})
		for i := range 6 {
			l.Append(record.Event{Action: record.Request, Session: fmt.Sprint("s", i), Count: 7})
		}
		head = l.Head()
		closed(t, l)
		return dir, head
	}
	for name, test := range map[string]struct {
		change func(dir string, all []string) error
		want   string // in the error; "" when the file's name has to be
	}{
		"a line is changed": {func(_ string, all []string) error {
			text, err := os.ReadFile(all[3])
			return errors.Join(err, os.WriteFile(all[3], bytes.Replace(text, []byte("s2"), []byte("s9"), 1), 0o600))
		}, "line 4 was changed"},
		"a file is taken away": {func(_ string, all []string) error { return os.Remove(all[3]) }, "line 5 follows line 3"},
		"the oldest are taken away": {func(_ string, all []string) error {
			return errors.Join(os.Remove(all[0]), os.Remove(all[1]))
		}, "oldest lines are missing"},
		"the end is cut off": {func(_ string, all []string) error {
			return errors.Join(os.Remove(all[6]), os.Remove(all[7]))
		}, "not what it was"},
		"all is written anew": {func(dir string, all []string) error {
			for _, file := range all {
				if err := os.Remove(file); err != nil {
					return err
				}
			}
			l := audit.New(audit.Config{Dir: dir})
			if err := l.Open(t.Context()); err != nil {
				return err
			}
			for range 10 {
				l.Append(record.Event{Action: record.Request})
			}
			return l.Close()
		}, "not what it was"},
	} {
		dir, head := write(t)
		if _, err := audit.Verify(t.Context(), dir, head); err != nil {
			t.Fatal(err)
		}
		if err := test.change(dir, files(t, dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := audit.Verify(t.Context(), dir, head); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestOldestAreRemoved(t *testing.T) {
	dir := t.TempDir()
	l := open(t, audit.Config{Dir: dir, SegmentSize: 2 << 10, MaxSize: 10 << 10})
	first := l.Head()
	for range 400 {
		l.Append(record.Event{Action: record.Request, Session: "s"})
	}
	closed(t, l)
	var size int64
	for _, file := range files(t, dir) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 12<<10 {
		t.Errorf("the record has %d bytes", size)
	}
	report, err := audit.Verify(t.Context(), dir, first)
	if err != nil || report.First.Seq == 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestDiskFull: what does not fit waits, and nothing is begun meanwhile; later all of
// it is there, in order, and whole.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("a small file system is needed, which only root can mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l := open(t, audit.Config{Dir: dir})
	const n = 400
	for i := range n {
		l.Append(record.Event{Action: record.Request, Session: fmt.Sprint(i), Path: strings.Repeat("x", 100)})
	}
	if err := l.Ready(); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("Ready = %v", err)
	}
	if _, err := audit.Verify(t.Context(), dir); err != nil {
		t.Errorf("with a full disk: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	closed(t, l)
	next := 0
	_, _, err := audit.Read(t.Context(), dir, func(_ record.Line, e record.Event) error {
		if e.Action == record.Request && e.Session == fmt.Sprint(next) {
			next++
		}
		return nil
	})
	if err != nil || next != n {
		t.Errorf("%d of %d events, %v", next, n, err)
	}
}
