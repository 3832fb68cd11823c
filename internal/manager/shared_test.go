package manager_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
)

// newSharedWorld is one on which several managers share a Redis server.
func newSharedWorld(t *testing.T) *world {
	server := redistest.Any(t).Start(t)
	w := newWorldOn(t, redis.New(redis.Config{URL: "redis://" + server.Addr()}))
	w.set(func(*manager.Config) {})
	return w
}

// set changes the settings of the managers that are started next.
func (w *world) set(change func(*manager.Config)) {
	w.config = func(cfg *manager.Config) {
		cfg.Shared, cfg.KeepSessions, cfg.SettleInterval = true, false, 20*time.Millisecond
		change(cfg)
	}
}

// rounds counts what a manager does from time to time, by its use of the store.
type rounds struct {
	*redis.Store
	due, live atomic.Int32
}

func (r *rounds) Due(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	r.due.Add(1)
	return r.Store.Due(ctx, now, limit)
}

func (r *rounds) Living(ctx context.Context) ([]session.Session, error) {
	r.live.Add(1)
	return r.Store.Living(ctx)
}

// counted starts a manager whose rounds are counted.
func (w *world) counted() (*node, *rounds) {
	r := &rounds{Store: w.store.(*redis.Store)}
	w.wrapStore = func(manager.Store) manager.Store { return r }
	defer func() { w.wrapStore = nil }()
	return w.start(), r
}

// pass waits until a manager has looked for overdue and forgotten sessions a few times
// from now on.
func (w *world) pass(r *rounds) {
	due, live := r.due.Load()+4, r.live.Load()+4
	w.eventually("the other manager looks", func() bool { return r.due.Load() >= due && r.live.Load() >= live })
}

// gate holds creations until it is opened.
type gate struct {
	entered, open chan struct{}
}

func newGate() gate { return gate{make(chan struct{}, 64), make(chan struct{})} }

func (g gate) wait(ctx context.Context, _ sandbox.Spec) error {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin has a node create a session in the background.
func (n *node) begin(ctx context.Context, header ...string) chan answer {
	out := make(chan answer, 1)
	go func() { out <- n.do(ctx, "alice", "POST", createPath, createBody, header...) }()
	return out
}

// TestOthersMakeSessions: a session that one manager is making, before and after it has
// a sandbox, is left alone by another one that starts, settles and looks for idle
// sessions, also where its idle time-out is over before it is made.
func TestOthersMakeSessions(t *testing.T) {
	t.Parallel()
	for name, hooks := range map[string]func(gate) fake.Hooks{
		"without sandbox": func(g gate) fake.Hooks { return fake.Hooks{Create: g.wait} },
		"with sandbox":    func(g gate) fake.Hooks { return fake.Hooks{Created: g.wait} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newSharedWorld(t)
			w.templates[0].IdleTimeout = time.Millisecond
			g := newGate()
			w.hooks = hooks(g)
			a := w.start()
			made := a.begin(t.Context())
			<-g.entered
			w.hooks = fake.Hooks{}
			_, looked := w.counted()
			w.pass(looked)
			if live := w.live(); len(live) != 1 || live[0].State != api.StatePending {
				t.Errorf("living sessions: %+v", live)
			}
			close(g.open)
			got := <-made
			if got.status != http.StatusOK {
				t.Fatalf("create = %d %s", got.status, got.body)
			}
			var out api.CreateResponse
			got.decode(t, &out)
			w.eventuallyEnded(out.SessionID, api.FateIdle) // only now
		})
	}
}

// TestLimitsHoldForAll: no more sandboxes are made by several managers than there may
// be, of one owner and of all, and as many as there may be can be.
func TestLimitsHoldForAll(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	w.set(func(cfg *manager.Config) { cfg.MaxPerOwner, cfg.MaxSandboxes = 4, 6 })
	nodes := []*node{w.start(), w.start()}
	made := map[string]*atomic.Int32{"alice": {}, "bob": {}}
	var wg sync.WaitGroup
	for i := range 40 {
		for who := range made {
			wg.Go(func() {
				switch got := nodes[i%2].do(t.Context(), who, "POST", createPath, createBody); got.status {
				case http.StatusOK:
					made[who].Add(1)
				case http.StatusTooManyRequests:
					if !strings.Contains(got.body, "which is the limit") || got.header.Get("Retry-After") == "" {
						t.Errorf("refused with %s", got.body)
					}
				default:
					t.Errorf("create = %d %s", got.status, got.body)
				}
			})
		}
	}
	wg.Wait()
	alice, bob := made["alice"].Load(), made["bob"].Load()
	if alice > 4 || bob > 4 || alice+bob != 6 || len(w.host.IDs()) != 6 {
		t.Errorf("alice has %d sessions, bob %d, of 4 each and 6 together; sandboxes: %d", alice, bob, len(w.host.IDs()))
	}
	// Whichever manager removes one, any can make the next.
	for i, rec := range w.live() {
		if got := nodes[i%2].do(t.Context(), rec.Owner, "DELETE", "/v1/sessions/"+rec.ID, ""); got.status != http.StatusOK {
			t.Errorf("delete = %d %s", got.status, got.body)
		}
		if got := nodes[(i+1)%2].do(t.Context(), rec.Owner, "POST", createPath, createBody); got.status != http.StatusOK {
			t.Errorf("create = %d %s", got.status, got.body)
		}
	}
}

// TestSeatsAreMended: a seat that a manager left when it died is found, and a sandbox
// without one, as from before there were limits, counts.
func TestSeatsAreMended(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	before := w.start()
	before.create()
	seats := w.store.(session.Seats)
	if err := seats.TakeSeat(t.Context(), session.Seat{Owner: "alice", ID: "s-" + uuid.NewString()}, session.SeatLimits{}); err != nil {
		t.Fatal(err)
	}
	w.set(func(cfg *manager.Config) { cfg.MaxPerOwner, cfg.SettleAge = 2, time.Nanosecond })
	n := w.start()
	w.eventually("the seats are those of the sandboxes", func() bool {
		all, err := seats.ListSeats(t.Context(), session.Seat{}, 10)
		return err == nil && len(all) == 1 && all[0].ID == w.host.IDs()[0]
	})
	n.create()
	if got := n.do(t.Context(), "alice", "POST", createPath, createBody); got.status != http.StatusTooManyRequests {
		t.Errorf("third session of two = %d %s", got.status, got.body)
	}
}

// TestReplayElsewhere: a create that is repeated at another manager waits for the
// session that is being made, or makes it when the first is given up.
func TestReplayElsewhere(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprintf("first leaves %v", leaves), func(t *testing.T) {
			w := newSharedWorld(t)
			g := newGate()
			w.hooks.Create = g.wait
			a := w.start()
			w.hooks.Create = nil
			b, looked := w.counted()
			first, leave := context.WithCancel(t.Context())
			defer leave()
			made := a.begin(first, "Idempotency-Key", "k")
			<-g.entered
			impatient, stop := context.WithCancel(t.Context())
			gaveUp := b.begin(impatient, "Idempotency-Key", "k")
			again := b.begin(t.Context(), "Idempotency-Key", "k")
			w.pass(looked)
			stop()
			if got := <-gaveUp; got.status != 499 {
				t.Errorf("request that was given up = %d %s", got.status, got.body)
			}
			select {
			case got := <-again:
				t.Fatalf("answered before the session was made: %d %s", got.status, got.body)
			default:
			}
			if leaves {
				leave()
			} else {
				close(g.open)
			}
			got, want := <-again, <-made
			var one, other api.CreateResponse
			if got.decode(t, &one); got.status != http.StatusOK {
				t.Fatalf("repeated create = %d %s", got.status, got.body)
			}
			if !leaves {
				if want.decode(t, &other); one.SessionID != other.SessionID {
					t.Errorf("the key has sessions %s and %s", one.SessionID, other.SessionID)
				}
			}
			w.eventually("one session and its sandbox", func() bool { return len(w.live()) == 1 && w.consistent() })
		})
	}
}

// TestMakerDies: a request that is repeated after its server has died does not wait for
// what nobody makes any more.
func TestMakerDies(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	g := newGate()
	w.hooks = fake.Hooks{Create: g.wait}
	w.set(func(cfg *manager.Config) { cfg.MakerSilence = time.Hour }) // one that is not heard
	a := w.start()
	first := a.begin(t.Context(), api.HeaderIdempotencyKey, "k")
	<-g.entered
	w.hooks = fake.Hooks{}
	w.set(func(cfg *manager.Config) { cfg.MakerSilence = 100 * time.Millisecond })
	b := w.start()
	second := <-b.begin(t.Context(), api.HeaderIdempotencyKey, "k")
	if second.status != http.StatusOK {
		t.Fatalf("a repeated request after the death of its server: %d %s", second.status, second.body)
	}
	close(g.open)
	if got := <-first; got.status != http.StatusGone && got.status < 500 {
		t.Errorf("the server that was only slow answers %d %s", got.status, got.body)
	}
	live, _, err := w.store.List(t.Context(), session.Query{States: []api.State{api.StatePending, api.StateRunning}, Limit: 10})
	if err != nil || len(live) != 1 || live[0].State != api.StateRunning {
		t.Errorf("sessions %+v, %v, want the second alone", live, err)
	}
	w.eventually("one sandbox is left", func() bool { return len(w.host.IDs()) == 1 })
}

// TestDeletedElsewhere: a session that is deleted by way of another manager is undone by
// the one that makes it, whose client hears why.
func TestDeletedElsewhere(t *testing.T) {
	t.Parallel()
	for name, hooks := range map[string]func(gate) fake.Hooks{
		"without sandbox": func(g gate) fake.Hooks { return fake.Hooks{Create: g.wait} },
		"with sandbox":    func(g gate) fake.Hooks { return fake.Hooks{Created: g.wait} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newSharedWorld(t)
			log := &recorded{}
			w.set(func(cfg *manager.Config) { cfg.Audit = log })
			g := newGate()
			w.hooks = hooks(g)
			a := w.start()
			w.hooks = fake.Hooks{}
			b := w.start()
			made := a.begin(t.Context(), "Idempotency-Key", "k")
			<-g.entered
			id := w.live()[0].ID
			if got := b.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+id, ""); got.status != http.StatusOK {
				t.Errorf("delete = %d %s", got.status, got.body)
			}
			close(g.open)
			if got := <-made; got.status != http.StatusGone || !strings.Contains(got.body, string(api.FateDeleted)) {
				t.Errorf("create = %d %s", got.status, got.body)
			}
			w.eventuallyEnded(id, api.FateDeleted)
			if n := log.count(record.SessionEnded, id) + log.count(record.SessionCreated, id); n != 1 {
				t.Errorf("%d events of a session that never was", n)
			}
		})
	}
}

// TestCloseLeavesSessions: when one manager stops, sessions go on, and only what it is
// making is undone.
func TestCloseLeavesSessions(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	g := newGate()
	var hold atomic.Bool
	w.hooks.Create = func(ctx context.Context, spec sandbox.Spec) error {
		if !hold.Load() {
			return nil
		}
		return g.wait(ctx, spec)
	}
	w.templates[0].WarmPoolSize = 1
	a := w.start()
	w.hooks.Create = nil
	b := w.start()
	kept := a.create()
	hold.Store(true)
	made := a.begin(t.Context())
	<-g.entered
	a.stop()
	if err := a.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if got := <-made; got.status != http.StatusServiceUnavailable {
		t.Errorf("create = %d %s", got.status, got.body)
	}
	if live := w.live(); len(live) != 1 || live[0].ID != kept.SessionID || !w.consistent() {
		t.Errorf("living sessions %+v, sandboxes %v", live, w.host.IDs())
	}
	if got := b.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+kept.SessionID, ""); got.status != http.StatusOK {
		t.Errorf("delete by way of another = %d %s", got.status, got.body)
	}
}

// TestCountedForAll: rates, and signatures that count once, hold for all managers.
func TestCountedForAll(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	w.set(func(cfg *manager.Config) { cfg.MaxCreateRate = 1 })
	nodes := []*node{w.start(), w.start()}
	let := 0
	for i := range 200 {
		switch got := nodes[i%2].do(t.Context(), "bob", "POST", createPath, `{"name":"none","namespace":"default"}`); got.status {
		case http.StatusNotFound:
			let++
		case http.StatusTooManyRequests:
			if got.header.Get("Retry-After") == "" {
				t.Errorf("refused without Retry-After: %s", got.body)
			}
		default:
			t.Fatalf("create = %d %s", got.status, got.body)
		}
	}
	if let < 64 || let > 120 { // twice 64 if each counted for itself
		t.Errorf("%d requests were let in of a bucket of 64", let)
	}

	got := nodes[0].do(t.Context(), "alice", "POST", createPath,
		fmt.Sprintf(`{"name":"simple-codeinterpreter","namespace":"default","publicKey":%q}`, clientKey(t)))
	var bound api.CreateResponse
	got.decode(t, &bound)
	path, body := "/v1/sessions/"+bound.SessionID+"/checkpoints", `{"name":"c"}`
	signature := agree(t, keys().client, bound.SessionID, path, body)
	for i, want := range []int{http.StatusOK, http.StatusForbidden} {
		if got := nodes[i].do(t.Context(), "alice", "POST", path, body, api.HeaderSessionSignature, signature); got.status != want {
			t.Errorf("signature used %d times: %d %s", i+1, got.status, got.body)
		}
	}
}

// addressed is a driver whose sandboxes are on a network.
type addressed struct{ sandbox.Full }

func (d addressed) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	sb, err := d.Full.Create(ctx, spec)
	sb.Address = "fd00::7"
	return sb, err
}

// TestAddress: where a sandbox is reached is in its record, and in the answer.
func TestAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.wrap = func(d sandbox.Full) sandbox.Full { return addressed{d} }
	made := w.start().create()
	if len(made.EntryPoints) != 1 || made.EntryPoints[0].Endpoint != "[fd00::7]:8080" {
		t.Errorf("entry points %+v", made.EntryPoints)
	}
	if rec := w.record(made.SessionID); rec.Address != "fd00::7" || rec.EntryPoints[0] != made.EntryPoints[0] {
		t.Errorf("address %q, entry points %+v", rec.Address, rec.EntryPoints)
	}
}

// TestSharedNeeds: what cannot be shared is refused, and no noted clock is.
func TestSharedNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := manager.New(manager.Config{Store: w.store, Shared: true}).Open(t.Context()); err == nil {
		t.Error("Open with a store of one process: no error")
	}
	shared := newSharedWorld(t)
	cfg := manager.Config{Store: shared.store, Shared: true, Clock: session.NewClock()}
	if err := manager.New(cfg).Open(t.Context()); err == nil {
		t.Error("Open with a clock of one process: no error")
	}
	was := session.ClockState{Offset: time.Hour, Seen: time.Now().UTC().Add(time.Hour).Round(time.Millisecond)}
	if err := shared.store.SaveClock(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	_, looked := shared.counted()
	shared.pass(looked)
	if now, err := shared.store.LoadClock(t.Context()); err != nil || now != was {
		t.Errorf("clock %+v, %v; want it as it was", now, err)
	}
}

// TestManyAreMade: sessions that others are making, however many and however overdue,
// hide no other that is to end.
func TestManyAreMade(t *testing.T) {
	t.Parallel()
	w := newSharedWorld(t)
	w.templates[0].IdleTimeout = time.Minute
	w.set(func(cfg *manager.Config) { cfg.SettleInterval = time.Hour }) // which would miss sandboxes
	n := w.start()
	idle := w.record(n.create().SessionID)
	for i := range 601 {
		rec, since := idle, time.Hour
		rec.ID = uuid.NewString()
		rec.SandboxID = manager.SandboxID(rec.ID)
		if rec.State = api.StatePending; i == 600 {
			rec.State, since = api.StateRunning, 10*time.Minute
			idle = rec
		}
		rec.LastActivity = rec.LastActivity.Add(-since)
		if _, err := w.store.Create(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	w.eventuallyEnded(idle.ID, api.FateIdle)
}
