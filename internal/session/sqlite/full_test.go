package sqlite

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// A full disk is an unavailable store: what is there can be read, and when
// there is room again, writes succeed.
func TestFull(t *testing.T) {
	st := New(filepath.Join(t.TempDir(), "sessions.db"))
	if err := st.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.write.Exec("PRAGMA max_page_count = 60"); err != nil {
		t.Fatal(err)
	}
	var full error
	stored := 0
	for full == nil && stored < 1000 {
		s := storetest.New(stored)
		s.Metadata["filler"] = strings.Repeat("x", 10_000)
		if _, full = st.Create(t.Context(), s); full == nil {
			stored++
		}
	}
	if !errors.Is(full, session.ErrUnavailable) || !strings.Contains(full.Error(), "full") {
		t.Fatalf("after %d sessions: %v, want ErrUnavailable because the disk is full", stored, full)
	}
	for n := range stored {
		if _, err := st.Get(t.Context(), storetest.New(n).ID); err != nil {
			t.Errorf("Get: %v", err)
		}
	}
	if _, err := st.Get(t.Context(), storetest.New(stored).ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get of the session that did not fit: %v, want ErrNotFound", err)
	}
	if _, err := st.write.Exec("PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Create(t.Context(), storetest.New(stored)); err != nil {
		t.Errorf("Create with room again: %v", err)
	}
}

// The questions that are asked all the time are answered from an index.
func TestQueryPlans(t *testing.T) {
	st := New(filepath.Join(t.TempDir(), "sessions.db"))
	if err := st.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	listAll, _, err := listQuery(session.Query{})
	if err != nil {
		t.Fatal(err)
	}
	listOwner, _, err := listQuery(session.Query{Owner: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		st.stmts.readers()[&st.stmts.due]:        "sessions_due",
		st.stmts.readers()[&st.stmts.idempotent]: "sessions_idempotency",
		st.stmts.writers()[&st.stmts.purge]:      "sessions_ended",
		st.stmts.writers()[&st.stmts.touch]:      "PRIMARY KEY",
		st.stmts.readers()[&st.stmts.findToken]:  "sqlite_autoindex_tokens",
		listTokens:                               "PRIMARY KEY",
		listAll:                                  "sessions_page",
		listOwner:                                "sessions_owner",
	}
	for query, index := range tests {
		rows, err := st.read.Query("EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))[:parameters(query)]...)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		all := strings.Join(plan, "; ")
		if !strings.Contains(all, index) || strings.Contains(all, "TEMP B-TREE") {
			t.Errorf("%s\n\tis planned as %s, want %s without sorting", query, all, index)
		}
	}
}

// parameters counts the values that a query takes; ?1 counts once.
func parameters(query string) int {
	return strings.Count(query, "?") - max(0, strings.Count(query, "?1")-1)
}
