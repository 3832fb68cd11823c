package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// alone makes a Router one that nobody tells of changes, and that looks all the time.
func alone(_ *world, c *router.Config) {
	c.MaxRecordAge, c.RecheckInterval, c.ExitGrace = time.Nanosecond, time.Millisecond, guard
}

// endUntold ends a session by way of another process. Its sandbox stays for the moment.
func (w *world) endUntold(rec session.Session, fate api.Fate) {
	w.t.Helper()
	if _, err := w.store.Update(w.t.Context(), rec.ID, func(s *session.Session) error {
		s.State, s.Fate, s.Reason, s.EndedAt = api.StateEnded, fate, "because", time.Now().UTC()
		return nil
	}); err != nil {
		w.t.Error(err)
	}
}

// gone checks the answer of a session that has ended.
func gone(t *testing.T, got answer, fate api.Fate) {
	t.Helper()
	if got.status != http.StatusGone || !strings.Contains(got.body, `"fate":"`+string(fate)+`"`) || !strings.Contains(got.body, "because") {
		t.Errorf("answer %d %s, want 410 with fate %s and the reason", got.status, got.body, fate)
	}
}

// TestEndedElsewhere: a Router that knows a session hears of its end with the next
// request, though its sandbox would still answer.
func TestEndedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hello, alone)
	managed, bound := w.add(nil), w.add(keyBound(t))
	for rec, token := range map[string]string{managed.ID: "alice", bound.ID: sdkToken(t, keys().client)} {
		header := []string{api.HeaderSessionID, rec, "Authorization", token}
		if got := w.do("GET", base+"/", "", header...); got.status != http.StatusOK {
			t.Fatalf("answer %d %s", got.status, got.body)
		}
		w.endUntold(session.Session{ID: rec}, api.FateIdle)
		gone(t, w.do("GET", base+"/", "", header...), api.FateIdle)
	}
}

// TestPurgedElsewhere: a session whose record is gone is unknown.
func TestPurgedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hello, alone)
	rec := w.add(nil)
	w.do("GET", base+"/", "", as(rec, "alice")...)
	w.endUntold(rec, api.FateIdle)
	if n, err := w.store.Purge(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Fatalf("Purge: %d, %v", n, err)
	}
	if got := w.do("GET", base+"/", "", as(rec, "alice")...); got.status != http.StatusNotFound {
		t.Errorf("answer %d %s", got.status, got.body)
	}
}

// TestEndedWhileUnderWay: a request that has no answer yet is told why it gets none, and
// a stream breaks off, though the sandbox goes on.
func TestEndedWhileUnderWay(t *testing.T) {
	t.Parallel()
	entered, never := make(chan struct{}, 2), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_, _ = io.WriteString(rw, "half")
			_ = http.NewResponseController(rw).Flush()
		}
		entered <- struct{}{}
		select {
		case <-never:
		case <-r.Context().Done():
		}
	}, alone)
	defer close(never)
	rec := w.add(nil)
	answered, broke := make(chan answer, 1), make(chan error, 1)
	go func() { answered <- w.do("GET", base+"/", "", as(rec, "alice")...) }()
	go func() {
		resp, err := w.send(t.Context(), "GET", base+"/stream", http.NoBody, as(rec, "alice")...)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		broke <- err
	}()
	<-entered
	<-entered
	w.endUntold(rec, api.FateExpired)
	gone(t, <-answered, api.FateExpired)
	if err := <-broke; err == nil {
		t.Error("the stream of a session that has ended came to a good end")
	}
}

// TestSandboxGoesFirst: where a sandbox breaks off before its end is known, the answer
// waits for the news, which only the store has.
func TestSandboxGoesFirst(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) { entered <- struct{}{}; <-r.Context().Done() }, func(w *world, c *router.Config) {
		alone(w, c)
		c.MaxRecordAge, c.RecheckInterval = guard, guard // it is the failure that has it looked at
	})
	rec := w.add(nil)
	answered := make(chan answer, 2)
	go func() { answered <- w.do("GET", base+"/", "", as(rec, "alice")...) }()
	<-entered
	w.host.Lose(rec.SandboxID)
	w.endUntold(rec, api.FateHostLost)
	gone(t, <-answered, api.FateHostLost)
	// And so does one that finds no sandbox.
	other := w.add(nil)
	go func() { answered <- w.do("GET", base+"/", "", as(other, "alice")...) }()
	<-entered
	w.host.Lose(other.SandboxID)
	go func() { answered <- w.do("GET", base+"/", "", as(other, "alice")...) }()
	w.eventually("the sandbox is dialled again", func() bool { return w.dials.Load() >= 3 })
	w.endUntold(other, api.FateHostLost)
	gone(t, <-answered, api.FateHostLost)
	gone(t, <-answered, api.FateHostLost)
}

// changing is an authenticator whose tokens can be revoked, and that can be away.
type changing struct {
	auth.Authenticator
	revoked, away atomic.Bool
	asked         atomic.Int32
}

func (c *changing) Authenticate(r *http.Request) (auth.Principal, error) {
	c.asked.Add(1)
	switch {
	case c.away.Load():
		return auth.Principal{}, api.Errorf(http.StatusServiceUnavailable, api.CodeUnavailable, "away")
	case c.revoked.Load():
		return auth.Principal{}, auth.WrongToken()
	}
	return c.Authenticator.Authenticate(r)
}

// TestRevokedElsewhere: a request that was let in by a token ends soon after that is
// revoked, and not while nobody can tell; one that a key let in goes on.
func TestRevokedElsewhere(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 2), make(chan struct{})
	callers := &changing{Authenticator: authtest.Tokens{"alice": authtest.User("alice")}}
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}, func(w *world, c *router.Config) {
		alone(w, c)
		c.Authenticator = callers
	})
	managed, bound := w.add(nil), w.add(keyBound(t))
	byToken, byKey := make(chan answer, 1), make(chan answer, 1)
	go func() { byToken <- w.do("POST", base+"/", "body", as(managed, "alice")...) }()
	go func() { byKey <- w.do("POST", base+"/", "body", as(bound, sdkToken(t, keys().client))...) }()
	<-entered
	<-entered
	callers.away.Store(true)
	seen := callers.asked.Load() + 3
	w.eventually("the token is looked at again", func() bool { return callers.asked.Load() >= seen })
	select {
	case got := <-byToken:
		t.Fatalf("ended when nobody could tell: %d %s", got.status, got.body)
	default:
	}
	callers.revoked.Store(true)
	callers.away.Store(false)
	if got := <-byToken; got.status != http.StatusUnauthorized {
		t.Errorf("request whose token was revoked = %d %s", got.status, got.body)
	}
	close(release)
	if got := <-byKey; got.status != http.StatusOK {
		t.Errorf("request that the key let in = %d %s", got.status, got.body)
	}
	after := callers.asked.Load()
	w.do("GET", base+"/", "", as(bound, sdkToken(t, keys().client))...)
	if callers.asked.Load() != after {
		t.Error("tokens are looked at when no request is there because of one")
	}
}

// awayStore cannot be reached when it is away.
type awayStore struct {
	router.Sessions
	away atomic.Bool
	gets atomic.Int32
}

func (s *awayStore) Get(ctx context.Context, id string) (session.Session, error) {
	s.gets.Add(1)
	if s.away.Load() {
		return session.Session{}, fmt.Errorf("get: %w: %w", session.ErrUnavailable, session.ErrAway)
	}
	return s.Sessions.Get(ctx, id)
}

// Ping implements session.Pinger.
func (s *awayStore) Ping(context.Context) error {
	if s.away.Load() {
		return session.ErrUnavailable
	}
	return nil
}

func (s *awayStore) Touch(ctx context.Context, id string, at time.Time) error {
	if s.away.Load() {
		return session.ErrUnavailable
	}
	return s.Sessions.Touch(ctx, id, at)
}

// TestStoreAway: sessions that are known are served while the store is away, but for
// those in whose sandbox nothing would notice a request that is not for them.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	var store *awayStore
	w := newWorld(t, hello, func(w *world, c *router.Config) {
		alone(w, c)
		store = &awayStore{Sessions: c.Sessions}
		c.Sessions = store
	})
	store.away.Store(true)
	if got := w.do("GET", "/health/ready", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("ready without ever having reached the store: %d", got.status)
	}
	store.away.Store(false)
	if got := w.do("GET", "/health/ready", ""); got.status != http.StatusOK {
		t.Errorf("ready = %d %s", got.status, got.body)
	}
	known, unchecked, unknown := w.add(nil), w.add(func(s *session.Session) { s.Auth = api.AuthNone }), w.add(nil)
	for _, rec := range []session.Session{known, unchecked} {
		if got := w.do("GET", base+"/", "", as(rec, "alice")...); got.status != http.StatusOK {
			t.Fatalf("answer %d %s", got.status, got.body)
		}
	}
	store.away.Store(true)
	for rec, want := range map[string]int{known.ID: 200, unchecked.ID: 503, unknown.ID: 503} {
		if got := w.do("GET", base+"/", "", api.HeaderSessionID, rec, "Authorization", "alice"); got.status != want {
			t.Errorf("answer %d %s, want %d", got.status, got.body, want)
		}
	}
	// Who stayed away from all Routers would have no answer at all.
	if got := w.do("GET", "/health/ready", ""); got.status != http.StatusOK {
		t.Errorf("ready while the store is away: %d %s", got.status, got.body)
	}
	store.away.Store(false)
	for _, rec := range []session.Session{known, unchecked, unknown} {
		if got := w.do("GET", base+"/", "", as(rec, "alice")...); got.status != http.StatusOK {
			t.Errorf("when it is back: %d %s", got.status, got.body)
		}
	}
}

// TestRecordsAreKept: what is young enough is not read again, by however many requests,
// and a Router that is told of changes never reads again.
func TestRecordsAreKept(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{0, time.Hour} {
		var store *awayStore
		w := newWorld(t, hello, func(_ *world, c *router.Config) {
			store = &awayStore{Sessions: c.Sessions}
			c.Sessions, c.MaxRecordAge, c.RecheckInterval = store, age, time.Hour
		})
		rec := w.add(nil)
		for range 10 {
			w.do("GET", base+"/", "", as(rec, "alice")...)
		}
		if n := store.gets.Load(); n != 1 {
			t.Errorf("record that may be %v old was read %d times", age, n)
		}
	}
}

// TestByAddress: a sandbox is reached at the address in its record, of either family,
// and by no name.
func TestByAddress(t *testing.T) {
	t.Parallel()
	for _, ip := range []string{"127.0.0.1", "::1"} {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Logf("no %s here: %v", ip, err)
			continue
		}
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(hello)}}
		srv.Start()
		w := newWorld(t, hello, func(_ *world, c *router.Config) { c.Dialer = router.ByAddress{} })
		rec := w.add(func(s *session.Session) {
			s.Address = ip
			s.EntryPoints[0].Endpoint = net.JoinHostPort(ip, fmt.Sprint(port))
		})
		got := w.do("GET", base+"/", "", as(rec, "alice")...)
		if got.status != http.StatusOK || got.body != "hello" {
			t.Errorf("at %s: %d %s", ip, got.status, got.body)
		}
		srv.Close()
		if _, err := (router.ByAddress{}).Dial(t.Context(), rec, port); !errors.Is(err, sandbox.ErrRefused) {
			t.Errorf("nobody listens at %s: %v", ip, err)
		}
	}
	for address, want := range map[string]error{"": sandbox.ErrNotFound, "localhost": nil} {
		conn, err := router.ByAddress{}.Dial(t.Context(), session.Session{Address: address}, 1)
		if err == nil {
			conn.Close()
		}
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("address %q: %v", address, err)
		}
	}
}

// TestManyLook: requests of all kinds at once, while the session ends and another
// Router looks at it, get an answer of before or of after.
func TestManyLook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hello, alone)
	rec := w.add(nil)
	var wg sync.WaitGroup
	var served, ended atomic.Int32
	for range 8 {
		wg.Go(func() {
			for ended.Load() < 8 {
				switch got := w.do("GET", base+"/", "", as(rec, "alice")...); got.status {
				case http.StatusOK:
					served.Add(1)
				case http.StatusGone:
					ended.Add(1)
				default:
					t.Errorf("answer %d %s", got.status, got.body)
					ended.Add(8)
				}
			}
		})
	}
	w.eventually("requests are served", func() bool { return served.Load() > 50 })
	w.endUntold(rec, api.FateDeleted)
	wg.Wait()
}
