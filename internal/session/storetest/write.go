package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

func testCreateGet(t *testing.T, ctx context.Context, st session.Store) {
	want := New(1)
	if diff := cmp.Diff(want, mustCreate(t, ctx, st, want)); diff != "" {
		t.Errorf("Create returned (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, mustGet(t, ctx, st, want.ID)); diff != "" {
		t.Errorf("Get returned (-want +got):\n%s", diff)
	}
}

func testOddValues(t *testing.T, ctx context.Context, st session.Store) {
	zone := time.FixedZone("far east", 9*3600)
	tests := map[string]func(*session.Session){
		"unicode": func(s *session.Session) {
			s.Metadata = map[string]string{"naïve \u0000 \u2028 \U0001F9EA": "\"'\\;-- DROP TABLE\n\t\u200f", "": ""}
			s.Owner, s.Name, s.IdempotencyKey = "o'wner\u0301 %_", "näme", "ключ'\u0000"
		},
		"huge metadata": func(s *session.Session) {
			s.Metadata = map[string]string{}
			for i := range 2000 {
				s.Metadata[fmt.Sprint("key", i)] = strings.Repeat("ä", 500)
			}
		},
		"nothing but an id": func(s *session.Session) {
			*s = session.Session{ID: s.ID, CreatedAt: s.CreatedAt, ExpiresAt: s.ExpiresAt, LastActivity: s.LastActivity}
		},
		"another time zone and nanoseconds": func(s *session.Session) {
			s.CreatedAt = time.Date(2026, 3, 1, 12, 0, 0, 123456789, zone)
			s.LastActivity = s.CreatedAt.Add(time.Nanosecond)
		},
		"monotonic clock": func(s *session.Session) { s.CreatedAt, s.LastActivity = time.Now(), time.Now() },
		"no idle time-out to speak of": func(s *session.Session) {
			s.IdleTimeout = 1<<63 - 1
			s.ExpiresAt = time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
		},
	}
	n := 0
	for name, change := range tests {
		n++
		want := New(n)
		change(&want)
		t.Run(name, func(t *testing.T) {
			created := mustCreate(t, ctx, st, want)
			for _, tm := range []*time.Time{&want.CreatedAt, &want.ExpiresAt, &want.LastActivity} {
				*tm = tm.Round(0).UTC()
			}
			for what, got := range map[string]session.Session{"Create": created, "Get": mustGet(t, ctx, st, want.ID)} {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s returned (-want +got):\n%s", what, diff)
				}
				if got.CreatedAt.Location() != time.UTC || got.LastActivity.Location() != time.UTC {
					t.Errorf("%s returned times that are not in UTC", what)
				}
			}
		})
	}
}

func testIDTaken(t *testing.T, ctx context.Context, st session.Store) {
	first := mustCreate(t, ctx, st, New(1))
	second := New(1)
	second.Owner, second.IdempotencyKey = "somebody else", "k"
	got, err := st.Create(ctx, second)
	if !errors.Is(err, session.ErrExists) {
		t.Fatalf("Create with a taken id: %v, want ErrExists", err)
	}
	if diff := cmp.Diff(session.Session{}, got); diff != "" {
		t.Errorf("want the zero session (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first, mustGet(t, ctx, st, first.ID)); diff != "" {
		t.Errorf("the first session changed (-want +got):\n%s", diff)
	}
}

func testNotFound(t *testing.T, ctx context.Context, st session.Store) {
	mustCreate(t, ctx, st, New(1))
	for _, id := range []string{"", "no-such-session", New(1).ID + " ", "%"} {
		_, getErr := st.Get(ctx, id)
		_, updateErr := st.Update(ctx, id, func(*session.Session) error {
			t.Errorf("Update(%q) called change", id)
			return nil
		})
		touchErr := st.Touch(ctx, id, epoch)
		for method, err := range map[string]error{"Get": getErr, "Update": updateErr, "Touch": touchErr} {
			if !errors.Is(err, session.ErrNotFound) {
				t.Errorf("%s(%q): %v, want ErrNotFound", method, id, err)
			}
		}
	}
}

func testIdempotency(t *testing.T, ctx context.Context, st session.Store) {
	first := New(1)
	first.IdempotencyKey, first.RequestDigest = "key", "digest"
	first = mustCreate(t, ctx, st, first)

	again := New(2)
	again.IdempotencyKey = "key"
	got, err := st.Create(ctx, again)
	if !errors.Is(err, session.ErrExists) {
		t.Fatalf("Create with a used key: %v, want ErrExists", err)
	}
	if diff := cmp.Diff(first, got); diff != "" {
		t.Errorf("want the first session (-want +got):\n%s", diff)
	}
	if _, err := st.Get(ctx, again.ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("the second session was stored: %v", err)
	}
	sameID := New(1)
	sameID.IdempotencyKey = "key"
	if got, err := st.Create(ctx, sameID); !errors.Is(err, session.ErrExists) || got.ID != first.ID {
		t.Errorf("Create with used key and id: %q, %v, want the first session and ErrExists", got.ID, err)
	}
	other := New(3)
	other.IdempotencyKey, other.Owner = "key", "somebody else"
	mustCreate(t, ctx, st, other)
	for n := 4; n < 6; n++ { // no key is not a key
		mustCreate(t, ctx, st, New(n))
	}
	ended := mustUpdate(t, ctx, st, first.ID, end(epoch, api.FateDeleted))
	got, err = st.Create(ctx, again)
	if !errors.Is(err, session.ErrExists) || got.State != ended.State {
		t.Errorf("after the end: state %q, %v, want the ended session and ErrExists", got.State, err)
	}
}

func testIdempotencyAfterPurge(t *testing.T, ctx context.Context, st session.Store) {
	s := New(1)
	s.IdempotencyKey = "key"
	mustCreate(t, ctx, st, s)
	mustUpdate(t, ctx, st, s.ID, end(epoch, api.FateDeleted))
	if n, err := st.Purge(ctx, epoch.Add(time.Second)); n != 1 || err != nil {
		t.Fatalf("Purge: %d, %v", n, err)
	}
	again := New(2)
	again.IdempotencyKey = "key"
	mustCreate(t, ctx, st, again)
}

func testIdempotencyRace(t *testing.T, ctx context.Context, st session.Store) {
	const callers = 50
	var created atomic.Int32
	got := make([]string, callers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			s := New(i)
			s.IdempotencyKey = "one key for all"
			<-start
			stored, err := st.Create(ctx, s)
			if err == nil {
				created.Add(1)
			} else if !errors.Is(err, session.ErrExists) {
				t.Errorf("Create: %v", err)
			}
			got[i] = stored.ID
		})
	}
	close(start)
	wg.Wait()
	if n := created.Load(); n != 1 {
		t.Errorf("%d sessions were created, want 1", n)
	}
	for _, id := range got {
		if id == "" || id != got[0] {
			t.Fatalf("callers got different sessions: %q and %q", got[0], id)
		}
	}
	if page, _, err := st.List(ctx, session.Query{}); err != nil || len(page) != 1 {
		t.Errorf("List: %d sessions, %v, want 1", len(page), err)
	}
}

func testUpdate(t *testing.T, ctx context.Context, st session.Store) {
	before := mustCreate(t, ctx, st, New(1))
	want := before
	want.State, want.Fate, want.Reason = api.StateEnded, api.FateOutOfMemory, "over its limit"
	want.EndedAt = epoch.Add(time.Hour)
	want.Metadata = map[string]string{"new": "value"}
	got := mustUpdate(t, ctx, st, before.ID, func(s *session.Session) error {
		if diff := cmp.Diff(before, *s); diff != "" {
			t.Errorf("change got (-want +got):\n%s", diff)
		}
		*s = want
		s.ID, s.LastActivity = "another id", epoch.Add(24*time.Hour) // must not count
		return nil
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Update returned (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, mustGet(t, ctx, st, before.ID)); diff != "" {
		t.Errorf("Get returned (-want +got):\n%s", diff)
	}
}

func testUpdateRefused(t *testing.T, ctx context.Context, st session.Store) {
	before := mustCreate(t, ctx, st, New(1))
	refused := errors.New("refused")
	_, err := st.Update(ctx, before.ID, func(s *session.Session) error {
		s.State, s.Metadata["n"] = api.StateEnded, "changed"
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("Update: %v, want the error of change", err)
	}
	if diff := cmp.Diff(before, mustGet(t, ctx, st, before.ID)); diff != "" {
		t.Errorf("the record changed (-want +got):\n%s", diff)
	}
}

// testUpdateFixed: what sessions are found by does not change, but for a key that
// is given up.
func testUpdateFixed(t *testing.T, ctx context.Context, st session.Store) {
	first := New(1)
	first.IdempotencyKey = "key"
	first = mustCreate(t, ctx, st, first)
	keyless := mustCreate(t, ctx, st, New(2))
	for what, change := range map[string]func(*session.Session){
		"owner":            func(s *session.Session) { s.Owner = "somebody else" },
		"time of creation": func(s *session.Session) { s.CreatedAt = s.CreatedAt.Add(time.Nanosecond) },
		"key":              func(s *session.Session) { s.IdempotencyKey = "another" },
	} {
		for _, s := range []session.Session{first, keyless} {
			_, err := st.Update(ctx, s.ID, func(s *session.Session) error { change(s); return nil })
			if !errors.Is(err, session.ErrFixed) {
				t.Errorf("Update of the %s: %v, want ErrFixed", what, err)
			}
			if diff := cmp.Diff(s, mustGet(t, ctx, st, s.ID)); diff != "" {
				t.Errorf("the record changed (-want +got):\n%s", diff)
			}
		}
	}
	freed := mustUpdate(t, ctx, st, first.ID, func(s *session.Session) error { s.IdempotencyKey = ""; return nil })
	if diff := cmp.Diff(freed, mustGet(t, ctx, st, first.ID)); diff != "" || freed.IdempotencyKey != "" {
		t.Errorf("Get returned (-want +got):\n%s", diff)
	}
	if page, _, err := st.List(ctx, session.Query{Owner: first.Owner, IdempotencyKey: "key"}); err != nil || len(page) != 0 {
		t.Errorf("by a key that was given up: %v, %v", ids(page), err)
	}
	again := New(3)
	again.IdempotencyKey = "key"
	mustCreate(t, ctx, st, again)
	if page, _, err := st.List(ctx, session.Query{Owner: first.Owner, IdempotencyKey: "key"}); err != nil || len(page) != 1 || page[0].ID != again.ID {
		t.Errorf("by a key that was given again: %v, %v, want session 3", ids(page), err)
	}
}

func testUpdateRace(t *testing.T, ctx context.Context, st session.Store) {
	s := mustCreate(t, ctx, st, New(1))
	const writers, times = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range times {
				if _, err := st.Update(ctx, s.ID, increment); err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := mustGet(t, ctx, st, s.ID).Reason; len(got) != writers*times {
		t.Errorf("%d of %d updates are there", len(got), writers*times)
	}
}

// increment adds one to a count that is kept as the length of a text.
func increment(s *session.Session) error {
	s.Reason += "x"
	return nil
}

func testTouch(t *testing.T, ctx context.Context, st session.Store) {
	s := mustCreate(t, ctx, st, New(1))
	steps := []struct{ at, want time.Duration }{
		{time.Minute, time.Minute},
		{time.Minute, time.Minute},
		{30 * time.Second, time.Minute}, // the clock went back
		{-time.Hour, time.Minute},
		{time.Minute + time.Millisecond, time.Minute + time.Millisecond},
		{24 * time.Hour, 24 * time.Hour},
	}
	for _, step := range steps {
		if err := st.Touch(ctx, s.ID, s.CreatedAt.Add(step.at)); err != nil {
			t.Fatalf("Touch(%v): %v", step.at, err)
		}
		want := s
		want.LastActivity = s.CreatedAt.Add(step.want)
		if diff := cmp.Diff(want, mustGet(t, ctx, st, s.ID)); diff != "" {
			t.Errorf("after Touch(%v) (-want +got):\n%s", step.at, diff)
		}
	}
}

func testTouchWhileUpdating(t *testing.T, ctx context.Context, st session.Store) {
	s := mustCreate(t, ctx, st, New(1))
	last := s.CreatedAt
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 50 {
			if _, err := st.Update(ctx, s.ID, increment); err != nil {
				t.Errorf("Update: %v", err)
			}
		}
	})
	for i := range 50 {
		last = s.CreatedAt.Add(time.Duration(i) * time.Millisecond)
		if err := st.Touch(ctx, s.ID, last); err != nil {
			t.Errorf("Touch: %v", err)
		}
	}
	wg.Wait()
	got := mustGet(t, ctx, st, s.ID)
	if len(got.Reason) != 50 || !got.LastActivity.Equal(last) {
		t.Errorf("%d updates and activity at %v, want 50 and %v", len(got.Reason), got.LastActivity, last)
	}
}
