package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// clocks is the store under test as one that keeps the state of a clock, which
// all of them do.
func clocks(t *testing.T, st session.Store) session.Clocks {
	t.Helper()
	c, ok := st.(session.Clocks)
	if !ok {
		t.Fatalf("%T does not keep the state of a clock", st)
	}
	return c
}

func wantClock(t *testing.T, ctx context.Context, st session.Store, want session.ClockState) {
	t.Helper()
	got, err := clocks(t, st).LoadClock(ctx)
	if err != nil || got.Offset != want.Offset || !got.Seen.Equal(want.Seen) || got.Seen.Location() != time.UTC {
		t.Errorf("LoadClock = %v, %v, want %v", got, err, want)
	}
}

func testClock(t *testing.T, ctx context.Context, st session.Store) {
	wantClock(t, ctx, st, session.ClockState{})
	var last session.ClockState
	for _, last = range []session.ClockState{
		{Offset: 9 * time.Hour, Seen: epoch},
		{Offset: -56 * 365 * 24 * time.Hour, Seen: epoch.Add(time.Nanosecond)},
		{Seen: epoch.Add(-time.Hour)},
		{Offset: 1, Seen: epoch.Add(time.Hour)},
	} {
		if err := clocks(t, st).SaveClock(ctx, last); err != nil {
			t.Fatalf("SaveClock: %v", err)
		}
		wantClock(t, ctx, st, last)
	}
	if reopener, ok := st.(Reopener); ok {
		wantClock(t, ctx, reopener.Reopen(t), last)
	}
}
