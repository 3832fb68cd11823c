package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// checkpoints is the store under test as one that keeps checkpoints, which all
// of them do.
func checkpoints(t *testing.T, st session.Store) session.Checkpoints {
	t.Helper()
	c, ok := st.(session.Checkpoints)
	if !ok {
		t.Fatalf("%T does not keep checkpoints", st)
	}
	return c
}

// newCheckpoint is the n-th checkpoint of an owner, made n seconds after a fixed time.
func newCheckpoint(owner string, n int) session.Checkpoint {
	at := epoch.Add(time.Duration(n) * time.Second)
	return session.Checkpoint{
		Owner: owner, Name: fmt.Sprint("checkpoint-", n), Snapshot: fmt.Sprintf("c-%s-%d", owner, n), SizeBytes: 1 << 33,
		CreatedAt: at, UsedAt: at, SessionID: New(n).ID, Kind: api.KindCodeInterpreter, Namespace: "default",
		Template: "python", Auth: api.AuthClientKey, EntryPoints: New(n).EntryPoints, IdleTimeout: time.Minute,
		PauseAfter: time.Second, MaxDuration: time.Hour, MemoryBytes: 1 << 30, Env: map[string]string{"A": "b"},
	}
}

func mustCreateCheckpoint(t *testing.T, ctx context.Context, st session.Checkpoints, c session.Checkpoint) {
	t.Helper()
	if err := st.CreateCheckpoint(ctx, c); err != nil {
		t.Fatalf("CreateCheckpoint(%s): %v", c.Name, err)
	}
}

func wantCheckpoint(t *testing.T, ctx context.Context, st session.Checkpoints, want session.Checkpoint) {
	t.Helper()
	got, err := st.GetCheckpoint(ctx, want.Owner, want.Name)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("GetCheckpoint: %v (-want +got):\n%s", err, diff)
	}
}

func testCheckpoints(t *testing.T, ctx context.Context, s session.Store) {
	st := checkpoints(t, s)
	a1, a2, b1 := newCheckpoint("ann", 1), newCheckpoint("ann", 2), newCheckpoint("bob", 1)
	for _, c := range []session.Checkpoint{a1, b1, a2} {
		mustCreateCheckpoint(t, ctx, st, c)
		wantCheckpoint(t, ctx, st, c)
	}
	for owner, want := range map[string][]session.Checkpoint{
		"ann": {a2, a1}, "bob": {b1}, "": {a2, a1, b1}, "nobody": nil,
	} {
		got, err := st.ListCheckpoints(ctx, owner)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("ListCheckpoints(%q): %v (-want +got):\n%s", owner, err, diff)
		}
	}
	if err := st.DeleteCheckpoint(ctx, "ann", a1.Name, a1.Snapshot); err != nil {
		t.Errorf("DeleteCheckpoint: %v", err)
	}
	if _, err := st.GetCheckpoint(ctx, "ann", a1.Name); !errors.Is(err, session.ErrNoCheckpoint) {
		t.Errorf("GetCheckpoint after its end: %v, want ErrNoCheckpoint", err)
	}
	wantCheckpoint(t, ctx, st, b1) // of the same name, but another owner's
	again := newCheckpoint("ann", 1)
	again.Snapshot = "c-another"
	mustCreateCheckpoint(t, ctx, st, again)
	wantCheckpoint(t, ctx, st, again)
}

func testCheckpointOddValues(t *testing.T, ctx context.Context, s session.Store) {
	st := checkpoints(t, s)
	odd := newCheckpoint("o'wner\u0301 %_", 1)
	odd.Env = map[string]string{"naïve \u0000": "\"'\\;-- DROP TABLE\n"}
	odd.CreatedAt = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("far east", 9*3600))
	odd.UsedAt = time.Now()
	mustCreateCheckpoint(t, ctx, st, odd)
	odd.CreatedAt, odd.UsedAt = odd.CreatedAt.UTC(), odd.UsedAt.Round(0).UTC()
	wantCheckpoint(t, ctx, st, odd)
	bare := session.Checkpoint{Owner: "ann", Name: "bare", Snapshot: "c-bare", CreatedAt: epoch, UsedAt: epoch}
	mustCreateCheckpoint(t, ctx, st, bare)
	wantCheckpoint(t, ctx, st, bare)
}

func testCheckpointRefused(t *testing.T, ctx context.Context, s session.Store) {
	st := checkpoints(t, s)
	first := newCheckpoint("ann", 1)
	mustCreateCheckpoint(t, ctx, st, first)
	sameName, sameSnapshot := newCheckpoint("ann", 1), newCheckpoint("bob", 1)
	sameName.Snapshot, sameSnapshot.Snapshot = "c-another", first.Snapshot
	for what, c := range map[string]session.Checkpoint{"name": sameName, "snapshot": sameSnapshot} {
		if err := st.CreateCheckpoint(ctx, c); !errors.Is(err, session.ErrExists) {
			t.Errorf("CreateCheckpoint with a taken %s: %v, want ErrExists", what, err)
		}
	}
	for _, key := range [][2]string{{"bob", first.Name}, {"ann", "other"}, {"", ""}, {"%", "%"}} {
		_, getErr := st.GetCheckpoint(ctx, key[0], key[1])
		for what, err := range map[string]error{
			"GetCheckpoint": getErr, "UseCheckpoint": st.UseCheckpoint(ctx, key[0], key[1], epoch),
			"DeleteCheckpoint": st.DeleteCheckpoint(ctx, key[0], key[1], first.Snapshot),
		} {
			if !errors.Is(err, session.ErrNoCheckpoint) {
				t.Errorf("%s(%q): %v, want ErrNoCheckpoint", what, key, err)
			}
		}
	}
	if err := st.DeleteCheckpoint(ctx, "ann", first.Name, "c-another"); !errors.Is(err, session.ErrNoCheckpoint) {
		t.Errorf("DeleteCheckpoint with another snapshot: %v, want ErrNoCheckpoint", err)
	}
	wantCheckpoint(t, ctx, st, first)
}

func testCheckpointRace(t *testing.T, ctx context.Context, s session.Store) {
	st := checkpoints(t, s)
	var made atomic.Int32
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			c := newCheckpoint("ann", n)
			c.Name = "one name for all"
			err := st.CreateCheckpoint(ctx, c)
			if err == nil {
				made.Add(1)
			} else if !errors.Is(err, session.ErrExists) {
				t.Errorf("CreateCheckpoint: %v", err)
			}
		})
	}
	wg.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d checkpoints of one name were made, want 1", n)
	}
}

func testCheckpointUse(t *testing.T, ctx context.Context, s session.Store) {
	st := checkpoints(t, s)
	var all []session.Checkpoint
	for n := range 4 {
		all = append(all, newCheckpoint("ann", n))
		mustCreateCheckpoint(t, ctx, st, all[n])
	}
	unused := func(before time.Time, limit int, want ...session.Checkpoint) {
		t.Helper()
		got, err := st.UnusedCheckpoints(ctx, before, limit)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("UnusedCheckpoints(%v): %v (-want +got):\n%s", before, err, diff)
		}
	}
	unused(epoch, 10)
	unused(all[1].UsedAt, 10, all[0])
	unused(epoch.Add(time.Hour), 2, all[0], all[1])
	for _, step := range []struct{ at, want time.Duration }{{10 * time.Second, 10 * time.Second}, {0, 10 * time.Second}, {time.Hour, time.Hour}} {
		if err := st.UseCheckpoint(ctx, "ann", all[0].Name, epoch.Add(step.at)); err != nil {
			t.Fatalf("UseCheckpoint: %v", err)
		}
		all[0].UsedAt = epoch.Add(step.want)
		wantCheckpoint(t, ctx, st, all[0])
	}
	unused(epoch.Add(time.Hour), 10, all[1:]...)
}

func testCheckpointReopen(t *testing.T, ctx context.Context, s session.Store) {
	reopener, ok := s.(Reopener)
	if !ok {
		t.Log("this store cannot be reopened")
		return
	}
	c := newCheckpoint("ann", 1)
	mustCreateCheckpoint(t, ctx, checkpoints(t, s), c)
	wantCheckpoint(t, ctx, checkpoints(t, reopener.Reopen(t)), c)
}

func testDuePaused(t *testing.T, ctx context.Context, st session.Store) {
	s := mustCreate(t, ctx, st, New(1))
	for _, test := range []struct {
		by   session.PausedBy
		want time.Time
	}{
		{session.PausedByIdling, s.CreatedAt.Add(s.IdleTimeout)},
		{session.PausedByOwner, s.ExpiresAt},
	} {
		paused := mustUpdate(t, ctx, st, s.ID, func(s *session.Session) error {
			s.State, s.PausedBy, s.PausedAt = api.StatePaused, test.by, epoch.Add(time.Minute)
			return nil
		})
		if diff := cmp.Diff(paused, mustGet(t, ctx, st, s.ID)); diff != "" {
			t.Errorf("Get returned (-want +got):\n%s", diff)
		}
		for at, want := range map[time.Time]int{test.want.Add(-time.Millisecond): 0, test.want: 1} {
			if due, err := st.Due(ctx, at, 10); err != nil || len(due) != want {
				t.Errorf("paused by %s: %d due at %v, %v, want %d", test.by, len(due), at, err, want)
			}
		}
	}
	mustUpdate(t, ctx, st, s.ID, func(s *session.Session) error {
		s.State, s.PausedBy, s.PausedAt = api.StateRunning, "", time.Time{}
		return nil
	})
	if due, err := st.Due(ctx, s.CreatedAt.Add(s.IdleTimeout), 10); err != nil || len(due) != 1 {
		t.Errorf("resumed: %d due at the idle time-out, %v, want 1", len(due), err)
	}
}

// pauseDue asks the store under test, which all of them can be.
func pauseDue(t *testing.T, ctx context.Context, st session.Store, at time.Time, limit int) []string {
	t.Helper()
	sleepers, ok := st.(session.Sleepers)
	if !ok {
		t.Fatalf("%T does not find sessions to pause", st)
	}
	due, err := sleepers.PauseDue(ctx, at, limit)
	if err != nil {
		t.Fatalf("PauseDue: %v", err)
	}
	for _, s := range due {
		if !s.PauseDue(at) {
			t.Errorf("session %s is not to be paused at %v", s.ID, at)
		}
	}
	return ids(due)
}

func testPauseDue(t *testing.T, ctx context.Context, st session.Store) {
	for n, change := range []func(*session.Session){
		func(s *session.Session) { s.PauseAfter = 3 * time.Minute },
		func(s *session.Session) { s.PauseAfter = time.Minute },
		func(*session.Session) {}, // never
		func(s *session.Session) { s.PauseAfter, s.State = time.Minute, api.StatePaused },
		func(s *session.Session) { s.PauseAfter, s.State = time.Minute, api.StatePending },
		func(s *session.Session) { s.PauseAfter, s.State, s.EndedAt = time.Minute, api.StateEnded, epoch },
		func(s *session.Session) { s.PauseAfter = 1<<63 - 1 },
	} {
		s := New(n)
		change(&s)
		mustCreate(t, ctx, st, s)
	}
	first, second := epoch.Add(time.Minute+time.Second), epoch.Add(3*time.Minute)
	for _, test := range []struct {
		at    time.Time
		limit int
		want  []string
	}{
		{first.Add(-time.Millisecond), 10, []string{}},
		{first, 10, []string{New(1).ID}},
		{second, 10, []string{New(1).ID, New(0).ID}},
		{second, 1, []string{New(1).ID}},
		{epoch.Add(1000 * time.Hour), 10, []string{New(1).ID, New(0).ID}},
	} {
		if diff := cmp.Diff(test.want, pauseDue(t, ctx, st, test.at, test.limit)); diff != "" {
			t.Errorf("PauseDue(%v, %d) (-want +got):\n%s", test.at, test.limit, diff)
		}
	}
}

func testPauseDueFollows(t *testing.T, ctx context.Context, st session.Store) {
	s := New(1)
	s.PauseAfter = time.Minute
	mustCreate(t, ctx, st, s)
	check := func(what string, at time.Time) {
		t.Helper()
		if len(pauseDue(t, ctx, st, at.Add(-time.Millisecond), 10)) != 0 || len(pauseDue(t, ctx, st, at, 10)) != 1 {
			t.Errorf("%s: not due exactly at %v", what, at)
		}
	}
	check("created", s.CreatedAt.Add(time.Minute))
	if err := st.Touch(ctx, s.ID, s.CreatedAt.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("touched", s.CreatedAt.Add(time.Hour+time.Minute))
	mustUpdate(t, ctx, st, s.ID, func(s *session.Session) error { s.PauseAfter = time.Second; return nil })
	check("sooner", s.CreatedAt.Add(time.Hour+time.Second))
	mustUpdate(t, ctx, st, s.ID, func(s *session.Session) error { s.State = api.StatePaused; return nil })
	if due := pauseDue(t, ctx, st, s.CreatedAt.Add(100*time.Hour), 10); len(due) != 0 {
		t.Error("a paused session is to be paused")
	}
}
