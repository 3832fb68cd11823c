package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// filled makes a closed store with a few hundred sessions.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sessions.db")
	st := open(t, path)
	for n := range 300 {
		if _, err := st.Create(t.Context(), storetest.New(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		problem string
		hint    string
	}{
		{"not SQLite", func(t *testing.T, path string) {
			writeFile(t, path, bytes.Repeat([]byte("not a database\n"), 1000))
		}, "is damaged", "-wal"},
		{"overwritten in the middle", func(t *testing.T, path string) {
			data := readFile(t, path)
			for i := 4096; i < len(data)/2; i++ {
				data[i] ^= 0x5a
			}
			writeFile(t, path, data)
		}, "is damaged", "-wal"},
		{"cut off", func(t *testing.T, path string) {
			data := readFile(t, path)
			writeFile(t, path, data[:len(data)/2])
		}, "is damaged", "backup"},
		{"another program's", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			execSQL(t, path, "CREATE TABLE recipes (name TEXT)")
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a session store", "another data directory"},
		{"newer schema", func(t *testing.T, path string) {
			execSQL(t, path, "PRAGMA user_version = 1000")
		}, "newer AgentCube (schema 1000", "another data directory"},
		{"readable by others", func(t *testing.T, path string) {
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
		}, "mode 0640", "chmod 600"},
		{"a folder", func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, "is not a regular file", "remove it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filled(t)
			test.prepare(t, path)
			before, _ := os.ReadFile(path) // nil for the folder
			st := sqlite.New(path)
			err := st.Open(t.Context())
			var refused *sqlite.FileError
			if !errors.As(err, &refused) {
				t.Fatalf("Open: %v, want a *FileError", err)
			}
			if !strings.Contains(err.Error(), test.problem) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q does not say %q and the path", err, test.problem)
			}
			if !strings.Contains(refused.Hint(), test.hint) {
				t.Errorf("hint %q does not say %q", refused.Hint(), test.hint)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			if err := st.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestFileModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "sessions.db?x=%20#y")
	st := open(t, path)
	if _, err := st.Create(t.Context(), storetest.New(1)); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", suffix, info.Mode())
		}
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v, want mode 0700", info.Mode(), err)
	}
}

// Opening a new file is one transaction: of several at once, all succeed.
func TestOpenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			st := sqlite.New(path)
			if err := st.Open(t.Context()); err != nil {
				t.Errorf("Open: %v", err)
			} else if _, err := st.Create(t.Context(), storetest.New(n)); err != nil {
				t.Errorf("Create: %v", err)
			}
			t.Cleanup(func() { st.Close() })
		})
	}
	wg.Wait()
	page, _, err := open(t, path).List(t.Context(), session.Query{})
	if err != nil || len(page) != 8 {
		t.Errorf("%d sessions, %v, want 8", len(page), err)
	}
}

func TestAfterClose(t *testing.T) {
	st := open(t, filepath.Join(t.TempDir(), "sessions.db"))
	if err := errors.Join(st.Close(), st.Close()); err != nil {
		t.Fatalf("Close twice: %v", err)
	}
	if _, err := st.Create(t.Context(), storetest.New(1)); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("Create: %v, want ErrUnavailable", err)
	}
	if err := st.Ping(t.Context()); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("Ping: %v, want ErrUnavailable", err)
	}
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sqlite.New(filepath.Join(t.TempDir(), "sessions.db")).Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v, want context.Canceled", err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A file of the first schema, which knew neither pauses nor checkpoints nor a
// clock nor tokens, is taken over with all that it holds.
func TestMigratesFirstSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	st := open(t, path)
	rec, err := st.Create(t.Context(), storetest.New(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"DROP INDEX sessions_pause", "ALTER TABLE sessions DROP COLUMN pause_at", "ALTER TABLE sessions DROP COLUMN pause_after",
		"DROP TABLE checkpoints", "DROP TABLE clock", "DROP TABLE tokens", "DROP TABLE uses", "PRAGMA user_version = 1",
	} {
		execSQL(t, path, statement)
	}
	st = open(t, path)
	if got, err := st.Get(t.Context(), rec.ID); err != nil || got.ID != rec.ID || !got.LastActivity.Equal(rec.LastActivity) {
		t.Errorf("Get = %+v, %v", got, err)
	}
	if _, err := st.Update(t.Context(), rec.ID, func(s *session.Session) error { s.PauseAfter = time.Second; return nil }); err != nil {
		t.Fatal(err)
	}
	if due, err := st.PauseDue(t.Context(), rec.LastActivity.Add(time.Second), 10); err != nil || len(due) != 1 {
		t.Errorf("PauseDue = %d, %v, want the session", len(due), err)
	}
	if err := st.CreateCheckpoint(t.Context(), session.Checkpoint{Owner: "a", Name: "b", Snapshot: "c"}); err != nil {
		t.Error(err)
	}
	if state, err := st.LoadClock(t.Context()); err != nil || state != (session.ClockState{}) {
		t.Errorf("LoadClock = %v, %v, want none", state, err)
	}
	if err := st.CreateToken(t.Context(), tokentest.New(1)); err != nil {
		t.Error(err)
	}
	if err := st.UseOnce(t.Context(), session.Use{Owner: "a", ID: "b", Now: rec.CreatedAt, Until: rec.ExpiresAt, Most: 1}); err != nil {
		t.Error(err)
	}
}
