package redis_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// calls are one of each that a request may wait for.
func calls(st *redis.Store) map[string]func(context.Context) error {
	id := storetest.New(1).ID
	return map[string]func(context.Context) error{
		"Get":    func(ctx context.Context) error { _, err := st.Get(ctx, id); return err },
		"Touch":  func(ctx context.Context) error { return st.Touch(ctx, id, time.Now()) },
		"Create": func(ctx context.Context) error { _, err := st.Create(ctx, storetest.New(2)); return err },
		"Update": func(ctx context.Context) error {
			_, err := st.Update(ctx, id, func(s *session.Session) error { s.Reason += "x"; return nil })
			return err
		},
		"List": func(ctx context.Context) error { _, _, err := st.List(ctx, session.Query{}); return err },
		"Due":  func(ctx context.Context) error { _, err := st.Due(ctx, time.Now(), 10); return err },
		"Ping": st.Ping,
		"FindToken": func(ctx context.Context) error {
			_, err := st.FindToken(ctx, [32]byte{1})
			if errors.Is(err, auth.ErrNoToken) {
				return nil // which the server has said
			}
			return err
		},
	}
}

// wantAway wants every call to fail, and to say that it may be repeated.
func wantAway(t *testing.T, st *redis.Store) {
	t.Helper()
	for what, call := range calls(st) {
		err := call(t.Context())
		if !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, session.ErrAway) {
			t.Errorf("%s: %v, want ErrUnavailable and ErrAway", what, err)
		}
	}
}

// wantBack wants the store to work again soon.
func wantBack(t *testing.T, st *redis.Store) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = st.Ping(t.Context()); err == nil {
			return
		}
		if !errors.Is(err, session.ErrAway) {
			break
		}
	}
	t.Fatalf("Ping: %v", err)
}

// TestRestart: a server that is killed in the middle of everything, and comes back
// with its data, is used again.
func TestRestart(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			s := p.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			st := open(t, redis.Config{URL: "redis://" + s.Addr(), Timeout: timeout})
			if _, err := st.Create(t.Context(), storetest.New(1)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			done := make([]int, 4)
			for i := range done {
				wg.Go(func() {
					for ctx.Err() == nil {
						_, err := st.Update(ctx, storetest.New(1).ID, func(s *session.Session) error { s.Reason += "x"; return nil })
						switch {
						case err == nil:
							done[i]++
						case ctx.Err() == nil && !errors.Is(err, session.ErrUnavailable):
							t.Errorf("Update: %v", err)
						}
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
			s.Kill(t)
			wantAway(t, st.Store)
			s.Restart(t)
			wantBack(t, st.Store)
			// One that is back before anybody's patience ends is not noticed.
			patient := open(t, redis.Config{URL: "redis://" + s.Addr(), Timeout: 10 * time.Second})
			s.Kill(t)
			time.AfterFunc(timeout/2, func() { s.Restart(t) })
			if err := patient.Ping(t.Context()); err != nil {
				t.Errorf("Ping while it restarts: %v", err)
			}
			wantBack(t, st.Store)
			cancel()
			wg.Wait()
			got, err := st.Get(t.Context(), storetest.New(1).ID)
			if err != nil {
				t.Fatal(err)
			}
			acknowledged := 0
			for _, n := range done {
				acknowledged += n
			}
			// What was not acknowledged may have happened all the same: one call of each
			// goroutine for each time that the server went away, at the most.
			if n := len(got.Reason); n < acknowledged || n > acknowledged+len(done)*20 {
				t.Errorf("%d updates are there, %d were acknowledged", n, acknowledged)
			}
		})
	}
}

// TestFrozen: a server that takes connections and says nothing is away, too.
func TestFrozen(t *testing.T) {
	s := redistest.Any(t).Start(t)
	st := open(t, redis.Config{URL: "redis://" + s.Addr(), Timeout: timeout})
	if _, err := st.Create(t.Context(), storetest.New(1)); err != nil {
		t.Fatal(err)
	}
	s.Freeze(t)
	for what, call := range calls(st.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := call(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrUnavailable) {
			t.Errorf("%s: %v, want context.Canceled alone", what, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := st.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("Ping: %v, want the caller's deadline alone", err)
	}
	wantAway(t, st.Store)
	s.Thaw(t)
	wantBack(t, st.Store)
}

// TestAwayIsLeftAlone: while the server is away, calls fail by what is known, and it
// is not they who call on it.
func TestAwayIsLeftAlone(t *testing.T) {
	s := redistest.Any(t).Start(t)
	st := open(t, redis.Config{URL: "redis://" + s.Addr(), Timeout: timeout})
	s.Kill(t)
	wantAway(t, st.Store)
	var asked atomic.Int64
	hangUp(t, s.Addr(), func() { asked.Add(1) })
	const calls = 500
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if err := st.Ping(t.Context()); !errors.Is(err, session.ErrAway) {
				t.Errorf("Ping: %v, want ErrAway", err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n > calls/10 {
		t.Errorf("%d calls made %d connections", calls, n)
	}
}

// hangUp takes connections at an address until the test ends, tells of each, and ends it.
func hangUp(t *testing.T, addr string, tell func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tell()
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
}

// TestFailover: sentinels say which server is the master, and which is after it.
func TestFailover(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			sentinel, master, replica := p.Sentinel(t)
			st := open(t, redis.Config{URL: "redis+sentinel://" + sentinel.Addr() + "/cube", Timeout: timeout})
			if _, err := st.Create(t.Context(), storetest.New(1)); err != nil {
				t.Fatal(err)
			}
			master.Do(t, "WAIT", "1", "10000") // until the replica has it
			master.Kill(t)
			wantBack(t, st.Store)
			if role := replica.Do(t, "ROLE"); !strings.HasPrefix(role, "master") {
				t.Errorf("the replica is %s", role)
			}
			if _, err := st.Get(t.Context(), storetest.New(1).ID); err != nil {
				t.Error(err)
			}
			if _, err := st.Create(t.Context(), storetest.New(2)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClusterMemberAway: what the other servers of a cluster have goes on.
func TestClusterMemberAway(t *testing.T) {
	all := redistest.Any(t).Cluster(t, 3, "--cluster-require-full-coverage", "no", "--appendonly", "yes", "--appendfsync", "always")
	st := open(t, redis.Config{URL: "redis+cluster://" + all[0].Addr(), Timeout: timeout})
	for n := range 30 {
		if _, err := st.Create(t.Context(), storetest.New(n)); err != nil {
			t.Fatal(err)
		}
	}
	all[2].Kill(t)
	there, away := 0, 0
	for n := range 30 {
		switch err := st.Touch(t.Context(), storetest.New(n).ID, time.Now()); {
		case err == nil:
			there++
		case errors.Is(err, session.ErrAway):
			away++
		default:
			t.Errorf("Touch: %v", err)
		}
		if there > 5 && away > 0 {
			break // each that is away takes its time
		}
	}
	if there == 0 || away == 0 {
		t.Errorf("%d sessions are there and %d away, want some of each", there, away)
	}
	all[2].Restart(t)
	for n := range 30 {
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
			if err = st.Touch(t.Context(), storetest.New(n).ID, time.Now()); !errors.Is(err, session.ErrAway) {
				break
			}
		}
		if err != nil {
			t.Errorf("Touch after its return: %v", err)
		}
	}
}

func TestAfterClose(t *testing.T) {
	s := redistest.Any(t).Start(t)
	st := open(t, redis.Config{URL: "redis://" + s.Addr()})
	if err := errors.Join(st.Close(), st.Close()); err != nil {
		t.Fatalf("Close twice: %v", err)
	}
	if _, err := st.Create(t.Context(), storetest.New(1)); !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrAway) {
		t.Errorf("Create: %v, want ErrUnavailable alone", err)
	}
}
