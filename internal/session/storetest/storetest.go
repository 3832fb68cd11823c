package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// Reopener is a store that can be closed and opened again on the same data.
type Reopener interface {
	// Reopen closes the store and returns one that has the same data.
	Reopen(t *testing.T) session.Store
}

// Corrupter is a store in which a record can be damaged.
type Corrupter interface {
	// Corrupt makes the record of a session unreadable.
	Corrupt(t *testing.T, id string)
}

// guard bounds a test that would otherwise hang.
const guard = 2 * time.Minute

// epoch is when the sessions of the tests are created.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Run runs the suite. newStore returns an empty store that is closed when
// the test it was made for ends.
func Run(t *testing.T, newStore func(t *testing.T) session.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, ctx context.Context, st session.Store)
	}{
		{"create and get", testCreateGet},
		{"odd values come back unchanged", testOddValues},
		{"id taken", testIDTaken},
		{"not found", testNotFound},
		{"idempotency key", testIdempotency},
		{"idempotency key after purge", testIdempotencyAfterPurge},
		{"idempotency key, 50 at once", testIdempotencyRace},
		{"update", testUpdate},
		{"update refused by change", testUpdateRefused},
		{"update of what is fixed", testUpdateFixed},
		{"update, many at once", testUpdateRace},
		{"touch", testTouch},
		{"touch while updating", testTouchWhileUpdating},
		{"list order and pages", testListPages},
		{"list while changing", testListWhileChanging},
		{"list filters", testListFilters},
		{"list bad cursor", testListBadCursor},
		{"due", testDue},
		{"due follows touch and update", testDueFollows},
		{"due with an unreadable record", testDueUnreadable},
		{"due while paused", testDuePaused},
		{"pause due", testPauseDue},
		{"pause due follows touch and update", testPauseDueFollows},
		{"checkpoints", testCheckpoints},
		{"checkpoints, odd values", testCheckpointOddValues},
		{"checkpoints taken and missing", testCheckpointRefused},
		{"checkpoint, 50 at once", testCheckpointRace},
		{"checkpoints, use and age", testCheckpointUse},
		{"checkpoints after reopening", testCheckpointReopen},
		{"clock", testClock},
		{"used once", testOnce},
		{"used once, 50 at once", testOnceRace},
		{"purge", testPurge},
		{"cancelled context", testCancelled},
		{"ping", testPing},
		{"reopen", testReopen},
		{"model", testModel},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), guard)
			defer cancel()
			test.run(t, ctx, newStore(t))
		})
	}
}

// New returns the record of a running session, the n-th of its kind, created n
// seconds after a fixed time.
func New(n int) session.Session {
	created := epoch.Add(time.Duration(n) * time.Second)
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
	return session.Session{
		ID: id, Kind: api.KindCodeInterpreter, Namespace: "default", Name: "simple-codeinterpreter",
		State: api.StateRunning, Owner: "local", Auth: api.AuthClientKey, PublicKey: "-----BEGIN PUBLIC KEY-----\n",
		SandboxID: "s-" + id, Isolation: "gvisor",
		EntryPoints: []api.EntryPoint{{Path: "/", Protocol: "HTTP", Endpoint: "s-" + id + ":8080"}},
		IdleTimeout: 15 * time.Minute,
		CreatedAt:   created, ExpiresAt: created.Add(8 * time.Hour), LastActivity: created,
		Metadata: map[string]string{"n": fmt.Sprint(n)},
	}
}

// end is a change that ends a session.
func end(at time.Time, fate api.Fate) func(*session.Session) error {
	return func(s *session.Session) error {
		s.State, s.Fate, s.EndedAt = api.StateEnded, fate, at
		return nil
	}
}

func mustCreate(t *testing.T, ctx context.Context, st session.Store, s session.Session) session.Session {
	t.Helper()
	created, err := st.Create(ctx, s)
	if err != nil {
		t.Fatalf("Create(%s): %v", s.ID, err)
	}
	return created
}

func mustGet(t *testing.T, ctx context.Context, st session.Store, id string) session.Session {
	t.Helper()
	s, err := st.Get(ctx, id)
	if err != nil {
		t.Fatalf("Get(%s): %v", id, err)
	}
	return s
}

func mustUpdate(t *testing.T, ctx context.Context, st session.Store, id string, change func(*session.Session) error) session.Session {
	t.Helper()
	s, err := st.Update(ctx, id, change)
	if err != nil {
		t.Fatalf("Update(%s): %v", id, err)
	}
	return s
}

func ids(sessions []session.Session) []string {
	out := make([]string, len(sessions))
	for i, s := range sessions {
		out[i] = s.ID
	}
	return out
}
