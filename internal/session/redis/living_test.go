package redis_test

import (
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// TestLivingReadsNoEnded: those that have ended are kept for a day, and are too many to
// be read each minute.
func TestLivingReadsNoEnded(t *testing.T) {
	server := redistest.Any(t).Start(t)
	st := open(t, redis.Config{URL: "redis://" + server.Addr()})
	ctx := t.Context()
	for n := range 40 {
		rec, err := st.Create(ctx, storetest.New(n))
		if err != nil {
			t.Fatal(err)
		}
		if n < 3 {
			continue
		}
		if _, err := st.Update(ctx, rec.ID, func(s *session.Session) error {
			s.State, s.Fate, s.EndedAt = api.StateEnded, api.FateDeleted, s.CreatedAt
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	server.Do(t, "CONFIG", "RESETSTAT")
	if living, err := st.Living(ctx); err != nil || len(living) != 3 {
		t.Fatalf("Living: %d, %v", len(living), err)
	}
	if stats := server.Do(t, "INFO", "commandstats"); !strings.Contains(stats, "cmdstat_hmget:calls=3,") {
		t.Errorf("three are living; the server was asked\n%s", stats)
	}
}
