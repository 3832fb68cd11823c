package sqlite

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// loaded opens a store with a thousand living and a thousand ended sessions.
func loaded(b *testing.B) *Store {
	b.Helper()
	st := New(filepath.Join(b.TempDir(), "sessions.db"))
	if err := st.Open(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	for n := range 2000 {
		s := storetest.New(n)
		if n%2 == 1 {
			s.State, s.EndedAt = "ended", s.CreatedAt
		}
		if _, err := st.Create(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
	return st
}

func BenchmarkTouch(b *testing.B) { benchTouch(b, loaded(b)) }

// The same with the setting that waits for the disk.
func BenchmarkSynchronousFull(b *testing.B) {
	st := loaded(b)
	if _, err := st.write.Exec("PRAGMA synchronous = FULL"); err != nil {
		b.Fatal(err)
	}
	benchTouch(b, st)
}

func benchTouch(b *testing.B, st *Store) {
	at := storetest.New(2000).CreatedAt
	n := 0
	for b.Loop() {
		n++
		if err := st.Touch(b.Context(), storetest.New(n%1000*2).ID, at.Add(time.Duration(n))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFindToken is a part of every request with a token that is not the
// local one.
func BenchmarkFindToken(b *testing.B) {
	st := loaded(b)
	for n := range 1000 {
		if err := st.CreateToken(b.Context(), tokentest.New(n)); err != nil {
			b.Fatal(err)
		}
	}
	for n := 0; b.Loop(); n++ {
		if _, err := st.FindToken(b.Context(), tokentest.New(n%1000).Hash); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	st := loaded(b)
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if _, err := st.Get(b.Context(), storetest.New(n%2000).ID); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkCreate(b *testing.B) {
	st := loaded(b)
	for b.Loop() {
		s := storetest.New(1)
		s.ID = uuid.NewString()
		s.IdempotencyKey = s.ID
		if _, err := st.Create(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	st := loaded(b)
	for n := 0; b.Loop(); n++ {
		_, err := st.Update(b.Context(), storetest.New(n%1000*2).ID, func(s *session.Session) error {
			s.Reason = fmt.Sprint(n)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDueNone(b *testing.B) {
	st := loaded(b)
	for b.Loop() {
		due, err := st.Due(b.Context(), storetest.New(0).CreatedAt, 100)
		if err != nil || len(due) > 0 {
			b.Fatal(len(due), err)
		}
	}
}

func BenchmarkList100(b *testing.B) {
	st := loaded(b)
	for b.Loop() {
		if page, _, err := st.List(b.Context(), session.Query{Owner: "local", Limit: 100}); err != nil || len(page) != 100 {
			b.Fatal(len(page), err)
		}
	}
}
