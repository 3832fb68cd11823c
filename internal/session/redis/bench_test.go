package redis_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// loaded opens a store with a thousand living sessions.
func loaded(b *testing.B) *redis.Store {
	b.Helper()
	s := redistest.Any(b).Start(b)
	st := open(b, redis.Config{URL: "redis://" + s.Addr()})
	for n := range 1000 {
		if _, err := st.Create(b.Context(), storetest.New(n)); err != nil {
			b.Fatal(err)
		}
	}
	return st.Store
}

// BenchmarkTouch and BenchmarkGet are part of every request.
func BenchmarkTouch(b *testing.B) {
	st, at, n := loaded(b), storetest.New(1000).CreatedAt, 0
	for b.Loop() {
		n++
		if err := st.Touch(b.Context(), storetest.New(n%1000).ID, at.Add(time.Duration(n))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	st, n := loaded(b), 0
	for b.Loop() {
		n++
		if _, err := st.Get(b.Context(), storetest.New(n%1000).ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is with an idempotency key, which takes the most exchanges.
func BenchmarkCreate(b *testing.B) {
	st := loaded(b)
	for b.Loop() {
		s := storetest.New(0)
		s.ID = uuid.NewString()
		s.IdempotencyKey = s.ID
		if _, err := st.Create(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	st, n := loaded(b), 0
	for b.Loop() {
		n++
		_, err := st.Update(b.Context(), storetest.New(n%1000).ID, func(s *session.Session) error {
			s.IdleTimeout = time.Duration(n) * time.Second
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDueNothing is what the Workload Manager asks four times a second.
func BenchmarkDueNothing(b *testing.B) {
	st, at := loaded(b), storetest.New(0).CreatedAt
	for b.Loop() {
		if due, err := st.Due(b.Context(), at, 100); err != nil || len(due) != 0 {
			b.Fatal(len(due), err)
		}
	}
}

// BenchmarkFindToken is a part of every request with a token that is not the
// local one.
func BenchmarkFindToken(b *testing.B) {
	st, r := loaded(b), tokentest.New(1)
	if err := st.CreateToken(b.Context(), r); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := st.FindToken(b.Context(), r.Hash); err != nil {
			b.Fatal(err)
		}
	}
}
