package sqlite_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// writeTo makes this test binary the process that TestKill kills.
var (
	writeTo    = flag.String("write-to", "", "write to the store in this file until killed")
	writeRound = flag.Int("write-round", 0, "number of the round")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *writeTo == "" {
		goleak.VerifyTestMain(m)
	}
	st := sqlite.New(*writeTo)
	err := st.Open(context.Background())
	if err == nil {
		err = storetest.Write(context.Background(), st, *writeRound, os.Stdout)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// store adds to a Store what the suite asks for.
type store struct {
	*sqlite.Store
	path string
}

func open(t testing.TB, path string) store {
	t.Helper()
	st := sqlite.New(path)
	if err := st.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return store{st, path}
}

func (s store) Reopen(t *testing.T) session.Store {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.path)
}

func (s store) ReopenTokens(t *testing.T) auth.TokenStore {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.path)
}

func (s store) Corrupt(t *testing.T, id string) {
	execSQL(t, s.path, "UPDATE sessions SET record = substr(record, 1, 40) WHERE id = ?", id)
}

// execSQL works on the file from outside the store.
func execSQL(t *testing.T, path, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) session.Store {
		return open(t, filepath.Join(t.TempDir(), "sessions.db"))
	})
}

func TestTokens(t *testing.T) {
	tokentest.Run(t, func(t *testing.T) auth.TokenStore {
		return open(t, filepath.Join(t.TempDir(), "sessions.db"))
	})
}

// TestRevokedOnDisk: that a token was revoked does not wait in the log for the
// disk, as other writes may, and get lost with the power.
func TestRevokedOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	st := open(t, path)
	r := tokentest.New(1)
	if err := st.CreateToken(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := st.RevokeToken(t.Context(), r.Name, r.CreatedAt); err != nil {
		t.Fatal(err)
	}
	without := filepath.Join(t.TempDir(), "sessions.db") // the log
	writeFile(t, without, readFile(t, path))
	if got, err := open(t, without).FindToken(t.Context(), r.Hash); err != nil || got.RevokedAt.IsZero() {
		t.Errorf("FindToken = %+v, %v, want it revoked", got, err)
	}
}

// TestDamagedToken: a token whose record cannot be read lets nobody in.
func TestDamagedToken(t *testing.T) {
	for what, change := range map[string]string{
		"no scopes": "scopes = ''", "a scope of a newer version": "scopes = 'use,fly'",
	} {
		path := filepath.Join(t.TempDir(), "sessions.db")
		st := open(t, path)
		r := tokentest.New(1)
		if err := st.CreateToken(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		execSQL(t, path, "UPDATE tokens SET "+change)
		if got, err := st.FindToken(t.Context(), r.Hash); err == nil || got != (auth.TokenRecord{}) {
			t.Errorf("%s: FindToken = %+v, %v, want an error", what, got, err)
		}
	}
}

// A process that is killed in the middle of its writes loses nothing that it
// was told is stored, round after round on the same file.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	for round := range 6 {
		killRound(t, path, round, func(reports *os.File, ended <-chan error) {
			waitForReports(t, reports, ended, int64(20_000*(round+1)))
		})
	}
}

// Killed while the file is made and set up, it can be opened all the same.
func TestKillWhileOpening(t *testing.T) {
	for round := range 12 {
		path := filepath.Join(t.TempDir(), "sessions.db")
		killRound(t, path, round, func(reports *os.File, ended <-chan error) {
			for _, err := os.Stat(path); err != nil; _, err = os.Stat(path) {
				select {
				case err := <-ended:
					t.Fatalf("the writer ended by itself: %v", err)
				case <-time.After(100 * time.Microsecond):
				}
			}
			time.Sleep(time.Duration(round) * time.Millisecond)
		})
	}
}

// killRound lets a process write, kills it when wait returns, and checks what
// is there.
func killRound(t *testing.T, path string, round int, wait func(reports *os.File, ended <-chan error)) {
	t.Helper()
	reports, err := os.Create(filepath.Join(t.TempDir(), "reports"))
	if err != nil {
		t.Fatal(err)
	}
	defer reports.Close()
	child := exec.CommandContext(t.Context(), os.Args[0], "-write-to", path, "-write-round", strconv.Itoa(round))
	child.Stdout = reports
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	wait(reports, ended)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if _, err := reports.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	st := open(t, path)
	changes := storetest.Verify(t, t.Context(), st, reports)
	t.Logf("round %d: %d changes were acknowledged", round, changes)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func waitForReports(t *testing.T, reports *os.File, ended <-chan error, bytes int64) {
	t.Helper()
	for guard := time.After(2 * time.Minute); ; {
		info, err := reports.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= bytes {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("the writer ended by itself: %v", err)
		case <-guard:
			t.Fatal("the writer writes nothing")
		case <-time.After(time.Millisecond):
		}
	}
}
