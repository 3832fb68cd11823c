package router_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/session"
)

// as is what a request to a session carries.
func as(rec session.Session, token string) []string {
	return []string{"X-Agentcube-Session-Id", rec.ID, "Authorization", token}
}

func ofBob(s *session.Session) { s.Owner = "bob" }

// TestOwnerLimit: one owner's requests, of whatever kind, leave room for others',
// and those that are not let in take none.
func TestOwnerLimit(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release },
		func(_ *world, c *router.Config) { c.MaxPerOwner = 2 })
	managed, bound, hers := w.add(nil), w.add(keyBound(t)), w.add(ofBob)
	done := make(chan answer)
	hold := func(header []string) {
		go func() { done <- w.do("GET", base+"/", "", header...) }()
		<-entered
	}
	hold(as(managed, "alice"))
	for range 3 {
		if got := w.do("GET", base+"/", "", as(managed, "bob")...); got.status != 404 {
			t.Errorf("of another owner = %d %s", got.status, got.body)
		}
		if got := w.do("GET", base+"/", "", as(bound, sdkToken(t, keys().stranger))...); got.status != 401 {
			t.Errorf("of another key = %d %s", got.status, got.body)
		}
	}
	hold(as(bound, sdkToken(t, keys().client))) // it is alice's, too
	for _, header := range [][]string{as(managed, "alice"), as(bound, sdkToken(t, keys().client)), {"Authorization", "alice"}} {
		got := w.do("GET", base+"/", "", header...)
		if want := failure("server overloaded, please try again later", "SERVER_OVERLOADED", `"hint":"you have 2 requests under way, which is the limit",`); got.status != 429 ||
			got.header.Get("Retry-After") != "1" || blankTimes(got.body) != want {
			t.Errorf("third request = %d %s", got.status, got.body)
		}
	}
	hold(as(hers, "bob"))
	close(release)
	for range 3 {
		if got := <-done; got.status != 200 {
			t.Errorf("request = %d %s", got.status, got.body)
		}
	}
	go func() { <-entered }()
	if got := w.do("GET", base+"/", "", as(managed, "alice")...); got.status != 200 {
		t.Errorf("when there is room again = %d %s", got.status, got.body)
	}
}

// TestRevokedEndsRequests: those that have come because of the token, at whatever
// point they are, and no others.
func TestRevokedEndsRequests(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			_, _ = io.WriteString(rw, "half")
			_ = http.NewResponseController(rw).Flush()
		}
		entered <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}, nil)
	managed, none := w.add(nil), w.add(func(s *session.Session) { s.Auth = api.AuthNone })
	bound, bobs := w.add(keyBound(t)), w.add(ofBob)
	waiting, others := make(chan answer), make(chan answer)
	send := func(to chan answer, header []string) {
		go func() { to <- w.do("GET", base+"/", "", header...) }()
		<-entered
	}
	send(waiting, as(managed, "alice"))
	send(waiting, as(none, "alice"))
	send(others, as(bound, sdkToken(t, keys().client)))
	send(others, as(bobs, "bob"))
	begun, err := w.send(t.Context(), "GET", base+"/begun", nil, as(managed, "alice")...)
	if err != nil {
		t.Fatal(err)
	}
	defer begun.Body.Close()
	<-entered
	w.router.Revoked("nobody")
	w.router.Revoked("alice")
	for range 2 {
		got := <-waiting
		var hint string
		if _, rest, ok := strings.Cut(got.body, `"hint":`); ok {
			hint = rest[:strings.Index(rest, `",`)+2]
		}
		if got.status != 401 || blankTimes(got.body) != failure("Invalid or expired token", "UNAUTHORIZED", `"hint":`+hint) || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("waiting request = %d %s", got.status, got.body)
		}
	}
	if text, err := io.ReadAll(begun.Body); err == nil || string(text) != "half" {
		t.Errorf("answer that had begun: %q, %v, want it to break off", text, err)
	}
	close(release)
	for range 2 {
		if got := <-others; got.status != 200 {
			t.Errorf("request of others = %d %s", got.status, got.body)
		}
	}
}

// TestRevokedEndsUpgraded: also a connection that has changed its protocol.
func TestRevokedEndsUpgraded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buf.Flush()
		_, _ = io.Copy(conn, buf)
	}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET %s/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+
		"Authorization: Bearer alice\r\nX-Agentcube-Session-Id: %s\r\n\r\n", base, w.add(nil).ID)
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade = %+v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	w.router.Revoked("alice")
	if line, err := r.ReadString('\n'); err == nil {
		t.Errorf("read %q after the revocation", line)
	}
}

// TestRevokedWhileMade: a session that is being made for the request is not.
func TestRevokedWhileMade(t *testing.T) {
	t.Parallel()
	asked, given := make(chan struct{}), make(chan error, 1)
	w := newWorld(t, ok, func(w *world, c *router.Config) { c.Creator = slowCreator{asked, given} })
	done := make(chan answer)
	go func() { done <- w.do("GET", base+"/", "", "Authorization", "alice") }()
	<-asked
	w.router.Revoked("alice")
	if got := <-done; got.status != 401 {
		t.Errorf("answer = %d %s", got.status, got.body)
	}
	if err := <-given; err == nil {
		t.Error("the creation was not given up")
	}
}

type slowCreator struct {
	asked chan struct{}
	given chan error
}

func (c slowCreator) CreateManaged(ctx context.Context, _ auth.Principal, _, _, _ string) (session.Session, error) {
	close(c.asked)
	<-ctx.Done()
	c.given <- ctx.Err()
	return session.Session{}, ctx.Err()
}

// fickle is an authenticator for whom a token is good until it is revoked, which
// happens while a request is looked at.
type fickle struct {
	revoke  func()
	asked   atomic.Int32
	revoked atomic.Bool
}

func (f *fickle) Authenticate(*http.Request) (auth.Principal, error) {
	f.asked.Add(1)
	if f.revoked.Load() {
		return auth.Principal{}, auth.WrongToken()
	}
	f.revoked.Store(true)
	f.revoke()
	return authtest.User("alice"), nil
}

// TestRevokedWhileLookedAt: what was let in by a token as it was revoked does not
// slip through between the look at it and the counting of the request.
func TestRevokedWhileLookedAt(t *testing.T) {
	t.Parallel()
	for _, other := range []bool{false, true} {
		f := &fickle{}
		w := newWorld(t, ok, func(_ *world, c *router.Config) { c.Authenticator = f })
		f.revoke = func() { w.router.Revoked("alice") }
		header := as(w.add(nil), "x")
		if other {
			header = header[2:] // with a session of its own
		}
		w.create = func(auth.Principal, string, string, string) (session.Session, error) {
			t.Error("a session was made")
			return session.Session{}, httpserve.Overloaded()
		}
		if got := w.do("GET", base+"/", "", header...); got.status != 401 || f.asked.Load() != 2 {
			t.Errorf("answer = %d %s, asked %d times", got.status, got.body, f.asked.Load())
		}
	}
}

// TestRevokedUnderLoad: revocations of some disturb no others.
func TestRevokedUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	bobs := w.add(ofBob)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if got := w.do("GET", base+"/", "", as(bobs, "bob")...); got.status != 204 {
					t.Errorf("answer = %d %s", got.status, got.body)
				}
			}
		})
	}
	wg.Go(func() {
		for range 500 {
			w.router.Revoked("alice")
		}
	})
	wg.Wait()
}

// TestStrangersDoNotWait: to them a session that is held is as unknown as any.
func TestStrangersDoNotWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	rec := w.add(nil)
	for _, met := range []bool{false, true} {
		release, held := w.router.Hold(rec.ID, false)
		if !held {
			t.Fatal("not held")
		}
		if got := w.do("GET", base+"/", "", as(rec, "bob")...); got.status != 404 {
			t.Errorf("of another owner = %d %s, met %v", got.status, got.body, met)
		}
		if got := w.do("GET", base+"/", "", as(rec, "eve")...); got.status != 401 {
			t.Errorf("of nobody = %d %s, met %v", got.status, got.body, met)
		}
		release()
		if got := w.do("GET", base+"/", "", as(rec, "alice")...); got.status != 204 {
			t.Errorf("of the owner = %d %s", got.status, got.body)
		}
	}
}
