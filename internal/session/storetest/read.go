package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// pages lists everything, page by page, calling between after each page.
func pages(t *testing.T, ctx context.Context, st session.Store, q session.Query, between func()) []session.Session {
	t.Helper()
	var all []session.Session
	for range 1000 {
		page, next, err := st.List(ctx, q)
		if err != nil {
			t.Fatalf("List(%+v): %v", q, err)
		}
		if q.Limit > 0 && len(page) > q.Limit {
			t.Fatalf("List(%+v): %d sessions on a page", q, len(page))
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		q.Cursor = next
		between()
	}
	t.Fatal("List does not come to an end")
	return nil
}

func testListPages(t *testing.T, ctx context.Context, st session.Store) {
	var want []session.Session
	for n := range 25 {
		s := New(n)
		s.CreatedAt = epoch.Add(time.Duration(n/4) * time.Nanosecond) // several at once, and close together
		want = append(want, mustCreate(t, ctx, st, s))
	}
	slices.SortFunc(want, func(a, b session.Session) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	for _, limit := range []int{0, 1, 2, 3, 24, 25, 26, 1000} {
		got := pages(t, ctx, st, session.Query{Limit: limit}, func() {})
		if diff := cmp.Diff(ids(want), ids(got)); diff != "" {
			t.Errorf("limit %d (-want +got):\n%s", limit, diff)
		}
	}
	if page, next, err := st.List(ctx, session.Query{Owner: "nobody"}); len(page) != 0 || next != "" || err != nil {
		t.Errorf("nothing matches: %v, %q, %v", page, next, err)
	}
}

// What is there from the first page to the last is listed exactly once,
// whatever is added and removed meanwhile, the session at the cursor included.
func testListWhileChanging(t *testing.T, ctx context.Context, st session.Store) {
	stays := map[string]int{}
	for n := range 40 {
		s := New(n)
		mustCreate(t, ctx, st, s)
		if n%2 == 0 {
			stays[s.ID] = 0
		} else {
			mustUpdate(t, ctx, st, s.ID, end(epoch, api.FateIdle))
		}
	}
	added := 100
	got := pages(t, ctx, st, session.Query{Limit: 3}, func() {
		if _, err := st.Purge(ctx, epoch.Add(time.Second)); err != nil {
			t.Fatalf("Purge: %v", err)
		}
		older := New(added)
		older.CreatedAt = epoch.Add(-time.Hour)
		for _, s := range []session.Session{New(added + 500), older} {
			mustCreate(t, ctx, st, s)
		}
		added++
	})
	for _, s := range got {
		if n, ok := stays[s.ID]; ok {
			stays[s.ID] = n + 1
		}
	}
	for id, n := range stays {
		if n != 1 {
			t.Errorf("session %s was listed %d times", id, n)
		}
	}
}

func testListFilters(t *testing.T, ctx context.Context, st session.Store) {
	for n := range 12 {
		s := New(n)
		s.Owner = []string{"ann", "bob"}[n%2]
		s.Kind = []string{api.KindCodeInterpreter, api.KindAgentRuntime}[n/2%2]
		s.State = []api.State{api.StatePending, api.StateRunning, api.StateEnded}[n/4]
		if n > 7 {
			s.IdempotencyKey = []string{"x", "y"}[n/2%2]
		}
		mustCreate(t, ctx, st, s)
	}
	tests := []struct {
		query session.Query
		want  []int
	}{
		{session.Query{}, []int{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{session.Query{Owner: "ann"}, []int{10, 8, 6, 4, 2, 0}},
		{session.Query{Kind: api.KindAgentRuntime}, []int{11, 10, 7, 6, 3, 2}},
		{session.Query{States: []api.State{api.StateEnded}}, []int{11, 10, 9, 8}},
		{session.Query{States: []api.State{api.StatePending, api.StateRunning}}, []int{7, 6, 5, 4, 3, 2, 1, 0}},
		{session.Query{Owner: "bob", Kind: api.KindAgentRuntime, States: []api.State{api.StateRunning}}, []int{7}},
		{session.Query{IdempotencyKey: "x"}, []int{9, 8}},
		{session.Query{Owner: "ann", IdempotencyKey: "y"}, []int{10}},
		{session.Query{Owner: "ann", IdempotencyKey: "z"}, nil},
		{session.Query{Owner: "ann' OR '1'='1"}, nil},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%+v", test.query), func(t *testing.T) {
			want := []string{}
			for _, n := range test.want {
				want = append(want, New(n).ID)
			}
			for _, limit := range []int{0, 1} {
				test.query.Limit = limit
				if diff := cmp.Diff(want, ids(pages(t, ctx, st, test.query, func() {}))); diff != "" {
					t.Errorf("limit %d (-want +got):\n%s", limit, diff)
				}
			}
		})
	}
}

func testListBadCursor(t *testing.T, ctx context.Context, st session.Store) {
	mustCreate(t, ctx, st, New(1))
	mustCreate(t, ctx, st, New(2))
	_, next, err := st.List(ctx, session.Query{Limit: 1})
	if err != nil || next == "" {
		t.Fatalf("List: %q, %v", next, err)
	}
	for _, cursor := range []string{"x", "!!!!", next[:len(next)/2], next + "A", " " + next, strings.Repeat("A", 100_000)} {
		if _, _, err := st.List(ctx, session.Query{Cursor: cursor}); !errors.Is(err, session.ErrBadCursor) {
			t.Errorf("cursor %.20q: %v, want ErrBadCursor", cursor, err)
		}
	}
}

func testDue(t *testing.T, ctx context.Context, st session.Store) {
	add := func(n int, idle, life time.Duration, state api.State) string {
		s := New(n)
		s.CreatedAt, s.LastActivity = epoch, epoch
		s.IdleTimeout, s.ExpiresAt, s.State = idle, epoch.Add(life), state
		return mustCreate(t, ctx, st, s).ID
	}
	idleSecond := add(1, 20*time.Second, time.Hour, api.StateRunning)
	expiredFirst := add(2, time.Hour, 10*time.Second, api.StatePaused)
	add(3, time.Second, time.Second, api.StateEnded)
	pendingThird := add(4, 30*time.Second, time.Hour, api.StatePending)
	exact := add(5, 60*time.Second, time.Hour, api.StateRunning)
	add(6, 60*time.Second+time.Nanosecond, time.Hour, api.StateRunning)
	add(7, 1<<63-1, time.Hour, api.StateRunning)

	all := []string{expiredFirst, idleSecond, pendingThird, exact}
	tests := []struct {
		after time.Duration
		limit int
		want  []string
	}{
		{60 * time.Second, 100, all},
		{60 * time.Second, 2, all[:2]},
		{60*time.Second - time.Nanosecond, 100, all[:3]},
		{10 * time.Second, 100, all[:1]},
		{0, 100, []string{}},
	}
	for _, test := range tests {
		due, err := st.Due(ctx, epoch.Add(test.after), test.limit)
		if err != nil {
			t.Fatalf("Due: %v", err)
		}
		if diff := cmp.Diff(test.want, ids(due)); diff != "" {
			t.Errorf("after %v, limit %d (-want +got):\n%s", test.after, test.limit, diff)
		}
		for _, s := range due {
			if s.Deadline().After(epoch.Add(test.after)) {
				t.Errorf("session %s is due at %v", s.ID, s.Deadline())
			}
		}
	}
}

func testDueFollows(t *testing.T, ctx context.Context, st session.Store) {
	s := mustCreate(t, ctx, st, New(1))
	isDue := func(at time.Time) bool {
		due, err := st.Due(ctx, at, 10)
		if err != nil {
			t.Fatalf("Due: %v", err)
		}
		return len(due) == 1
	}
	check := func(what string, deadline time.Time) {
		t.Helper()
		if isDue(deadline.Add(-time.Millisecond)) || !isDue(deadline) {
			t.Errorf("%s: not due exactly at %v", what, deadline)
		}
	}
	check("created", s.CreatedAt.Add(s.IdleTimeout))
	if err := st.Touch(ctx, s.ID, s.CreatedAt.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("touched", s.CreatedAt.Add(time.Hour+s.IdleTimeout))
	mustUpdate(t, ctx, st, s.ID, func(s *session.Session) error { s.IdleTimeout = time.Minute; return nil })
	check("shorter idle time-out", s.CreatedAt.Add(time.Hour+time.Minute))
	mustUpdate(t, ctx, st, s.ID, func(s *session.Session) error { s.ExpiresAt = s.CreatedAt.Add(time.Second); return nil })
	check("shorter life", s.CreatedAt.Add(time.Second))
	mustUpdate(t, ctx, st, s.ID, end(epoch, api.FateExpired))
	if isDue(s.CreatedAt.Add(100 * time.Hour)) {
		t.Error("an ended session is due")
	}
}

func testDueUnreadable(t *testing.T, ctx context.Context, st session.Store) {
	corrupter, ok := st.(Corrupter)
	if !ok {
		t.Log("records of this store cannot be damaged from outside")
		return
	}
	var want []string
	for n := range 30 {
		s := mustCreate(t, ctx, st, New(n))
		if n%3 == 2 || n >= 20 {
			want = append(want, s.ID)
		} else {
			corrupter.Corrupt(t, s.ID)
		}
	}
	now := epoch.Add(100 * time.Hour)
	due, err := st.Due(ctx, now, 5)
	if diff := cmp.Diff(want[:5], ids(due)); diff != "" {
		t.Errorf("first five (-want +got):\n%s", diff)
	}
	if err == nil || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("Due: %v, want an error that names the records", err)
	}
	due, _ = st.Due(ctx, now, 100)
	if diff := cmp.Diff(want, ids(due)); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(len(want), len(pages(t, ctx, st, session.Query{Limit: 4}, func() {}))); diff != "" {
		t.Errorf("sessions listed (-want +got):\n%s", diff)
	}
	if _, err := st.Get(ctx, New(0).ID); err == nil || errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get of an unreadable record: %v, want an error other than ErrNotFound", err)
	}
}

func testPurge(t *testing.T, ctx context.Context, st session.Store) {
	for n := range 1200 { // more than any batch
		s := New(n)
		if n >= 100 {
			s.State, s.EndedAt = api.StateEnded, epoch.Add(time.Duration(n)*time.Second)
		}
		mustCreate(t, ctx, st, s)
	}
	n, err := st.Purge(ctx, epoch.Add(1150*time.Second))
	if n != 1050 || err != nil {
		t.Errorf("Purge: %d, %v, want 1050", n, err)
	}
	if got := pages(t, ctx, st, session.Query{Limit: 1000}, func() {}); len(got) != 150 || got[0].ID != New(1199).ID {
		t.Errorf("%d sessions are left, want 150", len(got))
	}
	if n, err := st.Purge(ctx, epoch.Add(1150*time.Second)); n != 0 || err != nil {
		t.Errorf("Purge again: %d, %v, want 0", n, err)
	}
}

func testCancelled(t *testing.T, ctx context.Context, st session.Store) {
	s := mustCreate(t, ctx, st, New(1))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, createErr := st.Create(cancelled, New(2))
	_, getErr := st.Get(cancelled, s.ID)
	_, updateErr := st.Update(cancelled, s.ID, increment)
	_, _, listErr := st.List(cancelled, session.Query{})
	_, dueErr := st.Due(cancelled, epoch, 1)
	_, purgeErr := st.Purge(cancelled, epoch)
	for method, err := range map[string]error{
		"Create": createErr, "Get": getErr, "Update": updateErr, "List": listErr, "Due": dueErr, "Purge": purgeErr,
		"Touch": st.Touch(cancelled, s.ID, epoch),
	} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrUnavailable) {
			t.Errorf("%s: %v, want context.Canceled alone", method, err)
		}
	}
	mustGet(t, ctx, st, s.ID)
}

func testPing(t *testing.T, ctx context.Context, st session.Store) {
	pinger, ok := st.(session.Pinger)
	if !ok {
		t.Fatal("the store has no Ping")
	}
	if err := pinger.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

func testReopen(t *testing.T, ctx context.Context, st session.Store) {
	reopener, ok := st.(Reopener)
	if !ok {
		t.Log("this store has no data of its own to reopen")
		return
	}
	want := mustCreate(t, ctx, st, New(1))
	want = mustUpdate(t, ctx, st, want.ID, increment)
	want.LastActivity = epoch.Add(time.Hour)
	if err := st.Touch(ctx, want.ID, want.LastActivity); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, ctx, st, New(2))
	_, next, err := st.List(ctx, session.Query{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	st = reopener.Reopen(t)
	if diff := cmp.Diff(want, mustGet(t, ctx, st, want.ID)); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
	page, _, err := st.List(ctx, session.Query{Limit: 1, Cursor: next})
	if err != nil || len(page) != 1 || page[0].ID != want.ID {
		t.Errorf("a cursor from before: %v, %v, want session 1", ids(page), err)
	}
}
