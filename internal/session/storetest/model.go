package storetest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// model is what a store should be: the records in a map.
type model struct {
	ctx   context.Context
	store session.Store
	recs  map[string]session.Session
}

// testModel runs random calls against the store and against the model, and
// wants the same answers.
func testModel(t *testing.T, ctx context.Context, st session.Store) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{ctx: ctx, store: st, recs: map[string]session.Session{}}
		m.empty(t)
		t.Repeat(map[string]func(*rapid.T){
			"create": m.create, "update": m.update, "touch": m.touch,
			"due": m.due, "pause due": m.pauseDue, "list": m.list, "purge": m.purge, "": m.check,
		})
	})
}

// empty removes what the run before left.
func (m *model) empty(t *rapid.T) {
	page, _, err := m.store.List(m.ctx, session.Query{Limit: 1000})
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	for _, s := range page {
		if _, err := m.store.Update(m.ctx, s.ID, end(epoch, api.FateDeleted)); err != nil {
			t.Fatalf("Update: %v", err)
		}
	}
	if _, err := m.store.Purge(m.ctx, epoch.Add(time.Nanosecond)); err != nil {
		t.Fatalf("Purge: %v", err)
	}
}

var (
	anyID     = rapid.Map(rapid.IntRange(0, 7), func(n int) string { return New(n).ID })
	anyOwner  = rapid.SampledFrom([]string{"ann", "bob"})
	anyState  = rapid.SampledFrom([]api.State{api.StatePending, api.StateRunning, api.StatePaused, api.StateEnded})
	anyTime   = rapid.Map(rapid.IntRange(0, 20), func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) })
	anyLength = rapid.Map(rapid.IntRange(0, 10), func(n int) time.Duration { return time.Duration(n) * time.Second })
)

func change(t *rapid.T, s *session.Session) {
	s.State = anyState.Draw(t, "state")
	s.IdleTimeout = anyLength.Draw(t, "idle")
	s.ExpiresAt = anyTime.Draw(t, "expires")
	s.PauseAfter = anyLength.Draw(t, "pause after")
	s.PausedBy = rapid.SampledFrom([]session.PausedBy{"", session.PausedByOwner, session.PausedByIdling}).Draw(t, "paused by")
	s.EndedAt = time.Time{}
	if s.Ended() {
		s.EndedAt = anyTime.Draw(t, "ended")
	}
}

func (m *model) create(t *rapid.T) {
	s := New(0)
	s.ID, s.Owner = anyID.Draw(t, "id"), anyOwner.Draw(t, "owner")
	s.CreatedAt, s.LastActivity = anyTime.Draw(t, "created"), anyTime.Draw(t, "activity")
	s.IdempotencyKey = rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "key")
	change(t, &s)

	want, exists := session.Session{}, false
	if _, taken := m.recs[s.ID]; taken {
		exists = true
	}
	for _, r := range m.recs {
		if s.IdempotencyKey != "" && r.Owner == s.Owner && r.IdempotencyKey == s.IdempotencyKey {
			want, exists = r, true
		}
	}
	if !exists {
		want, m.recs[s.ID] = s, s
	}
	got, err := m.store.Create(m.ctx, s)
	if exists != errors.Is(err, session.ErrExists) || !exists && err != nil {
		t.Fatalf("Create: %v, exists is %v", err, exists)
	}
	same(t, "Create", want, got)
}

func (m *model) update(t *rapid.T) {
	id := anyID.Draw(t, "id")
	want, there := m.recs[id]
	if there {
		change(t, &want)
		m.recs[id] = want
	}
	got, err := m.store.Update(m.ctx, id, func(s *session.Session) error {
		at, id := s.LastActivity, s.ID
		*s = want
		s.LastActivity, s.ID = at, id
		return nil
	})
	found(t, "Update", there, err)
	same(t, "Update", want, got)
}

func (m *model) touch(t *rapid.T) {
	id, at := anyID.Draw(t, "id"), anyTime.Draw(t, "at")
	r, there := m.recs[id]
	if there && at.After(r.LastActivity) {
		r.LastActivity = at
		m.recs[id] = r
	}
	found(t, "Touch", there, m.store.Touch(m.ctx, id, at))
}

func (m *model) due(t *rapid.T) {
	now, limit := anyTime.Draw(t, "now"), rapid.IntRange(1, 9).Draw(t, "limit")
	var want []time.Time
	for _, r := range m.recs {
		if !r.Ended() && !r.Deadline().After(now) {
			want = append(want, r.Deadline())
		}
	}
	slices.SortFunc(want, time.Time.Compare)
	want = want[:min(limit, len(want))]
	got, err := m.store.Due(m.ctx, now, limit)
	if err != nil {
		t.Fatalf("Due: %v", err)
	}
	// Which of two that are equally overdue comes first is not promised.
	deadlines := make([]time.Time, len(got))
	for i, s := range got {
		deadlines[i] = s.Deadline()
		same(t, "Due", m.recs[s.ID], s)
	}
	if !slices.EqualFunc(want, deadlines, time.Time.Equal) {
		t.Fatalf("Due: deadlines %v, want %v", deadlines, want)
	}
}

func (m *model) pauseDue(t *rapid.T) {
	sleepers, ok := m.store.(session.Sleepers)
	if !ok {
		t.Fatalf("%T does not find sessions to pause", m.store)
	}
	now, limit := anyTime.Draw(t, "now"), rapid.IntRange(1, 9).Draw(t, "limit")
	due := 0
	for _, r := range m.recs {
		if r.PauseDue(now) {
			due++
		}
	}
	got, err := sleepers.PauseDue(m.ctx, now, limit)
	if err != nil || len(got) != min(limit, due) {
		t.Fatalf("PauseDue: %d sessions, %v, want %d", len(got), err, min(limit, due))
	}
	for _, s := range got {
		same(t, "PauseDue", m.recs[s.ID], s)
		if !s.PauseDue(now) {
			t.Fatalf("PauseDue: %s is not to be paused", s.ID)
		}
	}
}

func (m *model) list(t *rapid.T) {
	q := session.Query{Limit: rapid.IntRange(1, 4).Draw(t, "limit")}
	if rapid.Bool().Draw(t, "of one owner") {
		q.Owner = anyOwner.Draw(t, "owner")
	}
	if rapid.Bool().Draw(t, "of some states") {
		q.States = rapid.SliceOfNDistinct(anyState, 1, 3, rapid.ID).Draw(t, "states")
	}
	var want []session.Session
	for _, r := range m.recs {
		if (q.Owner == "" || q.Owner == r.Owner) && (q.States == nil || slices.Contains(q.States, r.State)) {
			want = append(want, r)
		}
	}
	slices.SortFunc(want, func(a, b session.Session) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	var got []session.Session
	for more := true; more; more = q.Cursor != "" {
		page, next, err := m.store.List(m.ctx, q)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		got = append(got, page...)
		q.Cursor = next
	}
	same(t, "List", want, got)
}

func (m *model) purge(t *rapid.T) {
	before, want := anyTime.Draw(t, "before"), 0
	for id, r := range m.recs {
		if r.Ended() && r.EndedAt.Before(before) {
			delete(m.recs, id)
			want++
		}
	}
	if n, err := m.store.Purge(m.ctx, before); n != want || err != nil {
		t.Fatalf("Purge: %d, %v, want %d", n, err, want)
	}
}

// check compares every record.
func (m *model) check(t *rapid.T) {
	for n := range 8 {
		want, there := m.recs[New(n).ID]
		got, err := m.store.Get(m.ctx, New(n).ID)
		found(t, "Get", there, err)
		same(t, "Get", want, got)
	}
}

func found(t *rapid.T, what string, there bool, err error) {
	if there && err != nil || !there && !errors.Is(err, session.ErrNotFound) {
		t.Fatalf("%s: %v, but the session is there: %v", what, err, there)
	}
}

func same(t *rapid.T, what string, want, got any) {
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}
