package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// LivingStore is a Store that tells the sessions that have not ended.
type LivingStore interface {
	session.Store
	session.Living
}

// RunLiving runs the suite of session.Living. newStore returns an empty one.
func RunLiving(t *testing.T, newStore func(t *testing.T) LivingStore) {
	t.Run("living", func(t *testing.T) { testLiving(t, newStore(t)) })
	t.Run("living, cancelled", func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := newStore(t).Living(gone); err == nil {
			t.Error("Living: no error")
		}
	})
}

// testLiving: of more sessions than a store reads at once, in all states, those are told
// that have not ended, each once and as it is now.
func testLiving(t *testing.T, st LivingStore) {
	ctx := t.Context()
	states := []api.State{api.StatePending, api.StateRunning, api.StateEnded, api.StatePaused}
	var want []session.Session
	for n := range 600 {
		rec := mustCreate(t, ctx, st, New(n))
		state := states[n%len(states)]
		if err := st.Touch(ctx, rec.ID, rec.LastActivity.Add(1)); err != nil {
			t.Fatal(err)
		}
		rec, err := st.Update(ctx, rec.ID, func(s *session.Session) error {
			if s.State = state; state == api.StateEnded {
				s.Fate, s.EndedAt = api.FateDeleted, epoch
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if state != api.StateEnded {
			want = append(want, rec)
		}
	}
	got, err := st.Living(ctx)
	if err != nil {
		t.Fatal(err)
	}
	byID := func(a, b session.Session) int { return strings.Compare(a.ID, b.ID) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Living (-want +got):\n%.2000s", diff)
	}
}
