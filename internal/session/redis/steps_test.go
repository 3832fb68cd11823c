package redis

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// far is after all deadlines of the tests.
var far = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func openOn(t *testing.T, s *redistest.Server) *Store {
	t.Helper()
	st := New(Config{URL: "redis://" + s.Addr()})
	if err := st.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// creation is one that can be stopped after any of its steps, as if the process
// had died there.
type creation struct {
	t      *testing.T
	st     *Store
	rec    session.Session
	record string
	born   string
}

func newCreation(t *testing.T, st *Store, n int, key string) *creation {
	t.Helper()
	rec := storetest.New(n)
	rec.IdempotencyKey = key
	rec, record, err := encode(rec)
	if err != nil {
		t.Fatal(err)
	}
	return &creation{t, st, rec, record, newVersion(1)}
}

func (c *creation) must(n int64, err error) int64 {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *creation) key() []string { return []string{c.st.keys.session(c.rec.ID)} }

func (c *creation) begin() {
	c.must(c.st.run(c.t.Context(), "begin", c.st.scripts.begin, c.key(), c.born, c.record, digits(c.rec.LastActivity), "600000"))
}

func (c *creation) enter() {
	c.must(0, c.st.send(c.t.Context(), "enter", func(b valkey.Builder) valkey.Commands {
		return append(c.st.enter(b, c.rec.ID, c.born, placesOf(c.rec)), c.st.enterLists(b, c.rec, c.born)...)
	}))
}

func (c *creation) claim() *session.Session {
	first, err := c.st.claim(c.t.Context(), "claim", c.rec, c.born, "")
	c.must(0, err)
	return first
}

func (c *creation) commit() bool {
	return c.must(c.st.run(c.t.Context(), "commit", c.st.scripts.commit, c.key(), c.born)) == 1
}

// wantSessions wants exactly these to be found in each of the ways there are.
func wantSessions(t *testing.T, st *Store, what string, want ...session.Session) {
	t.Helper()
	ids := func(all []session.Session) map[string]bool {
		out := map[string]bool{}
		for _, s := range all {
			out[s.ID] = true
		}
		return out
	}
	all, _, err := st.List(t.Context(), session.Query{})
	owned, _, ownedErr := st.List(t.Context(), session.Query{Owner: "local"})
	due, dueErr := st.Due(t.Context(), far, 100)
	for how, got := range map[string][]session.Session{"List": all, "List of owner": owned, "Due": due} {
		if diff := cmp.Diff(ids(want), ids(got)); diff != "" || errors.Join(err, ownedErr, dueErr) != nil {
			t.Errorf("%s: %s: %v, %v, %v (-want +got):\n%s", what, how, err, ownedErr, dueErr, diff)
		}
	}
	for n := range 10 {
		id := storetest.New(n).ID
		_, err := st.Get(t.Context(), id)
		if there := ids(want)[id]; there != (err == nil) || !there && !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: Get(%s): %v", what, id, err)
		}
	}
}

// TestDiesWhileCreating: wherever a process dies, its session is all there or not
// at all, and in nobody's way.
func TestDiesWhileCreating(t *testing.T) {
	server := redistest.Any(t).Start(t)
	for steps := range 5 {
		for _, key := range []string{"", "key"} {
			t.Run(fmt.Sprintf("after %d steps, key %q", steps, key), func(t *testing.T) {
				server.Do(t, "FLUSHALL")
				st := openOn(t, server)
				c := newCreation(t, st, 1, key)
				for i, step := range []func(){c.begin, c.enter, func() {
					if key != "" {
						c.claim()
					}
				}, func() { c.commit() }} {
					if i < steps {
						step()
					}
				}
				if steps == 4 {
					wantSessions(t, st, "committed", c.rec)
				} else {
					wantSessions(t, st, "died")
				}
				// The client asks again, of another process.
				again := storetest.New(2)
				again.IdempotencyKey = key
				got, err := openOn(t, server).Create(t.Context(), again)
				switch {
				case key != "" && steps >= 3: // the claim decides
					if !errors.Is(err, session.ErrExists) || got.ID != c.rec.ID {
						t.Errorf("Create with the key of the dead: %q, %v, want its session", got.ID, err)
					}
					wantSessions(t, st, "asked again", c.rec)
				case steps == 4:
					wantSessions(t, st, "asked again", c.rec, again)
				default:
					if err != nil {
						t.Errorf("Create: %v", err)
					}
					wantSessions(t, st, "asked again", again)
					// Nor is its id taken.
					if _, err := st.Create(t.Context(), storetest.New(1)); err != nil {
						t.Errorf("Create with the id of the dead: %v", err)
					}
					wantSessions(t, st, "with its id", again, storetest.New(1))
				}
			})
		}
	}
}

// TestOvertaken: whoever was slow to create finds that out and begins anew.
func TestOvertaken(t *testing.T) {
	server := redistest.Any(t).Start(t)
	st := openOn(t, server)
	slow, fast := newCreation(t, st, 1, "key"), newCreation(t, st, 2, "key")
	slow.begin()
	fast.begin()
	slow.enter()
	fast.enter()
	if first := fast.claim(); first != nil {
		t.Errorf("the first claim found %v", first)
	}
	if first := slow.claim(); first == nil || first.ID != fast.rec.ID {
		t.Errorf("the second claim found %v, want the first session", first)
	}
	wantSessions(t, st, "settled by the second", fast.rec)
	if !fast.commit() {
		t.Error("what another has settled cannot be committed")
	}
	// Forgotten by the server in the middle of it.
	late := newCreation(t, st, 3, "")
	late.begin()
	server.Do(t, "DEL", st.keys.session(late.rec.ID))
	late.enter()
	if late.commit() {
		t.Error("a record that is gone was committed")
	}
	wantSessions(t, st, "forgotten", fast.rec)
	// By one who makes the same id.
	one, two := newCreation(t, st, 4, ""), newCreation(t, st, 4, "")
	one.begin()
	two.begin()
	two.enter()
	if one.commit() || !two.commit() {
		t.Error("of two with one id it is not the second that was created")
	}
	wantSessions(t, st, "one id", fast.rec, two.rec)
}

// TestDiesWhileUpdating: a place in an index without its version says nothing, and
// a version is never without its place.
func TestDiesWhileUpdating(t *testing.T) {
	server := redistest.Any(t).Start(t)
	st := openOn(t, server)
	rec, err := st.Create(t.Context(), storetest.New(1))
	if err != nil {
		t.Fatal(err)
	}
	r, err := st.row(t.Context(), "test", rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	// Dead after the places of its end were written.
	ended := rec
	ended.State, ended.EndedAt = api.StateEnded, rec.CreatedAt
	enter := func(version string, s session.Session) {
		t.Helper()
		if err := st.send(t.Context(), "enter", func(b valkey.Builder) valkey.Commands { return st.enter(b, rec.ID, version, placesOf(s)) }); err != nil {
			t.Fatal(err)
		}
	}
	enter(newVersion(number(r.version)+1), ended)
	wantSessions(t, st, "an end that never came", rec)
	if n, err := st.Purge(t.Context(), far); n != 0 || err != nil {
		t.Errorf("Purge: %d, %v", n, err)
	}
	if n := server.Do(t, "ZCARD", st.keys.index(indexEnded)); n != "1" {
		t.Errorf("a place that may still come true was removed: %s left", n)
	}
	// Dead after the new version was written, before the old places were removed.
	shorter := rec
	shorter.IdleTimeout = time.Second
	if _, err := st.Update(t.Context(), rec.ID, func(s *session.Session) error { s.IdleTimeout = time.Second; return nil }); err != nil {
		t.Fatal(err)
	}
	enter(r.placed, rec)
	wantSessions(t, st, "two places", rec)
	if n := server.Do(t, "ZCARD", st.keys.index(indexDue)); n != "1" {
		t.Errorf("%s places are left, want the present one", n)
	}
	if _, err := st.Purge(t.Context(), far); err != nil {
		t.Fatal(err)
	}
	if n := server.Do(t, "ZCARD", st.keys.index(indexEnded)); n != "0" {
		t.Errorf("%s places of an end that cannot come true any more are left", n)
	}
	// Purged by one who dies before the indexes are.
	server.Do(t, "DEL", st.keys.session(rec.ID))
	wantSessions(t, st, "purged")
	if left := server.Do(t, "KEYS", "*"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// TestServerForgets: where a server that took over lacks the last moments, an index and
// a record can be of different times. Either leads to the other.
func TestServerForgets(t *testing.T) {
	server := redistest.Any(t).Start(t)
	st := openOn(t, server)
	rec, err := st.Create(t.Context(), storetest.New(1))
	if err != nil {
		t.Fatal(err)
	}
	key, due := st.keys.session(rec.ID), st.keys.index(indexDue)
	old := server.Do(t, "HGET", key, "ver")
	if _, err := st.Update(t.Context(), rec.ID, func(s *session.Session) error { s.IdleTimeout = time.Second; return nil }); err != nil {
		t.Fatal(err)
	}
	version := server.Do(t, "HGET", key, "ver")
	// The index is of before.
	server.Do(t, "ZREM", due, timed(rec.ID, version))
	server.Do(t, "ZADD", due, strconv.FormatInt(score(rec.Deadline()), 10), timed(rec.ID, old))
	wantSessions(t, st, "the index has forgotten", rec)
	if members := server.Do(t, "ZRANGE", due, "0", "-1"); members != timed(rec.ID, version) {
		t.Errorf("the index is not mended: %q", members)
	}
	// The record is of before.
	server.Do(t, "HSET", key, "ver", old, "idx", old)
	wantSessions(t, st, "the record has forgotten", rec)
	wantSessions(t, st, "and again", rec)
	// Both have the session twice.
	server.Do(t, "ZADD", due, "1", timed(rec.ID, old))
	if found, err := st.Due(t.Context(), far, 10); err != nil || len(found) != 1 {
		t.Errorf("Due: %d sessions, %v, want it once", len(found), err)
	}
}

// TestSentAgain: what was carried out, but whose answer got lost, is not done a
// second time, whatever has happened since.
func TestSentAgain(t *testing.T) {
	server := redistest.Any(t).Start(t)
	st := openOn(t, server)
	rec, err := st.Create(t.Context(), storetest.New(1))
	if err != nil {
		t.Fatal(err)
	}
	key := []string{st.keys.session(rec.ID)}
	update := func(from, to, reason string) int64 {
		t.Helper()
		next := rec
		next.Reason = reason
		_, record, err := encode(next)
		if err != nil {
			t.Fatal(err)
		}
		n, err := st.run(t.Context(), "update", st.scripts.update, key, from, to, record, "0")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := server.Do(t, "HGET", key[0], "ver")
	second, third := newVersion(2), newVersion(3)
	for i, step := range []struct {
		from, to, reason string
		want             int64
	}{
		{first, second, "second", 1}, {first, second, "second", 1}, {first, newVersion(2), "late", 0},
		{second, third, "third", 1}, {first, second, "second", 1},
	} {
		if got := update(step.from, step.to, step.reason); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	if got, err := st.Get(t.Context(), rec.ID); err != nil || got.Reason != "third" {
		t.Errorf("Get: %q, %v, want the third", got.Reason, err)
	}
	c := newCreation(t, st, 2, "key")
	for range 2 {
		c.begin()
		c.enter()
		if first := c.claim(); first != nil {
			t.Errorf("its own claim is another's: %v", first)
		}
		if !c.commit() {
			t.Error("not committed")
		}
	}
	wantSessions(t, st, "twice", rec, c.rec)
}

// TestTouchLeavesIndexes: a note of activity, which is part of every request,
// changes the session's own key, and who looks for what is due moves its place.
func TestTouchLeavesIndexes(t *testing.T) {
	server := redistest.Any(t).Start(t)
	st := openOn(t, server)
	rec, err := st.Create(t.Context(), storetest.New(1))
	if err != nil {
		t.Fatal(err)
	}
	member := timed(rec.ID, server.Do(t, "HGET", st.keys.session(rec.ID), "ver"))
	place := func() string { return server.Do(t, "ZSCORE", st.keys.index(indexDue), member) }
	before := place()
	if err := st.Touch(t.Context(), rec.ID, rec.CreatedAt.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if place() != before {
		t.Error("Touch has moved it")
	}
	if due, err := st.Due(t.Context(), rec.CreatedAt.Add(time.Hour), 10); err != nil || len(due) != 0 {
		t.Errorf("Due: %v, %v", due, err)
	}
	want := rec.CreatedAt.Add(time.Hour + rec.IdleTimeout)
	if got := place(); got != strconv.FormatInt(score(want), 10) {
		t.Errorf("its place is %s, want %d", got, score(want))
	}
}

// TestReplicas: of two processes that want the same, one gets it.
func TestReplicas(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			server := p.Start(t)
			replicas := []*Store{openOn(t, server), openOn(t, server)}
			const rounds = 50
			var made, ended, used, taken atomic.Int32
			var ids sync.Map
			var wg sync.WaitGroup
			for i := range 2 * rounds {
				st, round := replicas[i%2], i/2
				wg.Go(func() {
					rec := storetest.New(i)
					rec.IdempotencyKey = fmt.Sprint("key ", round)
					got, err := st.Create(t.Context(), rec)
					if err == nil {
						made.Add(1)
					} else if !errors.Is(err, session.ErrExists) {
						t.Errorf("Create: %v", err)
					}
					if other, ok := ids.LoadOrStore(round, got.ID); ok && other != got.ID {
						t.Errorf("one request has the sessions %s and %s", other, got.ID)
					}
					errEnded := errors.New("ended already")
					_, err = st.Update(t.Context(), got.ID, func(s *session.Session) error {
						if s.Ended() {
							return errEnded
						}
						s.State, s.EndedAt = api.StateEnded, rec.CreatedAt
						return nil
					})
					if err == nil {
						ended.Add(1)
					} else if !errors.Is(err, errEnded) {
						t.Errorf("Update: %v", err)
					}
					err = st.UseOnce(t.Context(), session.Use{Owner: "ann", ID: rec.IdempotencyKey, Now: rec.CreatedAt, Until: far, Most: 1000})
					if err == nil {
						used.Add(1)
					}
					wait, err := st.Take(t.Context(), "ann", 1, session.Rate{PerSecond: 1, Burst: rounds}, far)
					if err == nil && wait == 0 {
						taken.Add(1)
					}
				})
			}
			wg.Wait()
			for what, n := range map[string]int32{"created": made.Load(), "ended": ended.Load(), "used": used.Load(), "taken": taken.Load()} {
				if n != rounds {
					t.Errorf("%s: %d, want %d", what, n, rounds)
				}
			}
			if n, err := replicas[0].Purge(t.Context(), far); n != rounds || err != nil {
				t.Errorf("Purge: %d, %v, want %d", n, err, rounds)
			}
			left := strings.Fields(server.Do(t, "KEYS", DefaultPrefix+"*"))
			for _, key := range left {
				if strings.Contains(key, "session") || strings.Contains(key, ":key:") {
					t.Errorf("Purge has left %s", key)
				}
			}
		})
	}
}
