package router_test

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestActivityAfterClockWasSet: a request counts as activity when the machine's
// clock was set back, too. Nothing was noted until it had caught up, and the
// session ended as idle while it was in use.
func TestActivityAfterClockWasSet(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-9 * time.Hour, 9 * time.Hour} {
		var mu sync.Mutex
		wall, elapsed := time.Now().UTC(), time.Duration(0)
		clock := session.NewClockOf(func() (time.Time, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			return wall, elapsed
		})
		w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello") },
			func(_ *world, c *router.Config) { c.Clock = clock })
		rec := w.add(func(s *session.Session) { s.LastActivity = s.LastActivity.Add(-time.Minute) })
		call := func() answer {
			return w.do("GET", base+"/", "", "Authorization", "alice", api.HeaderSessionID, rec.ID)
		}
		call()
		before := w.lastActivity(rec.ID)
		mu.Lock()
		wall, elapsed = wall.Add(jump+time.Minute), elapsed+time.Minute
		mu.Unlock()
		if got := call(); got.status != 200 || w.lastActivity(rec.ID).Sub(before) != time.Minute {
			t.Errorf("jump %v: answer %d, activity noted %v later, want a minute", jump, got.status, w.lastActivity(rec.ID).Sub(before))
		}
		clock.Follow()
		w.end(rec, api.FateIdle)
		ended, err := w.store.Get(t.Context(), rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		var e api.Error
		got := call()
		if err := json.Unmarshal([]byte(got.body), &e); err != nil || e.EndedAt == nil || !e.EndedAt.Equal(ended.EndedAt.Add(jump)) {
			t.Errorf("jump %v: %d %s, want endedAt as the machine's clock has it", jump, got.status, got.body)
		}
	}
}
