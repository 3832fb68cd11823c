package router_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestPauseCutsRequestOnUsedConnection: the transport repeats a GET by itself when
// a connection that it has used before breaks off, meets the pause then, and
// nothing seems to have been sent. Once a request has reached the sandbox it is not
// repeated: the session stays paused, as its owner wants it.
func TestPauseCutsRequestOnUsedConnection(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*session.Session){"managed": nil, "key-bound": keyBound(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived := make(chan struct{}, 1)
			var requests atomic.Int32
			w, k := newSleepyWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 2 {
					arrived <- struct{}{}
					<-r.Context().Done()
				}
			}, func(c *router.Config) { c.ExitGrace = guard })
			rec := w.add(set)
			token := "alice"
			if set != nil {
				token = sdkToken(t, keys().client)
			}
			get := func() answer {
				return w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", token)
			}
			if got := get(); got.status != 200 { // there is a connection to use again
				t.Fatalf("answer %d %s", got.status, got.body)
			}
			before := w.dials.Load()
			answers := make(chan answer, 1)
			go func() { answers <- get() }()
			<-arrived
			if n := w.dials.Load(); n != before {
				t.Fatalf("dialled %d times, want the connection used again", n)
			}
			w.sleep(rec.ID)
			got := <-answers
			if got.status != http.StatusConflict || !strings.Contains(got.body, string(api.CodeSessionPaused)) {
				t.Errorf("answer %d %s, want 409 %s", got.status, got.body, api.CodeSessionPaused)
			}
			if n := k.calls.Load(); n != 0 || !w.host.Paused(rec.SandboxID) {
				t.Errorf("the pause was undone (woken %d times)", n)
			}
			if n := requests.Load(); n != 2 {
				t.Errorf("%d requests reached the sandbox, want 2", n)
			}
		})
	}
}

// TestRetrySignsAnew: a token that the Router has made is sent once, whatever
// becomes of the request that it was made for.
func TestRetrySignsAnew(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	w, _ := newSleepyWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Connection", "close")
		if _, again := seen.LoadOrStore(r.Header.Get("Authorization"), true); again {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}, nil)
	rec := w.add(nil)
	for range 4 {
		if got := w.do("GET", base+"/", "", "X-Agentcube-Session-Id", rec.ID, "Authorization", "alice"); got.status != 200 {
			t.Errorf("answer %d %s", got.status, got.body)
		}
		if err := w.driver.Pause(t.Context(), rec.SandboxID); err != nil {
			t.Fatal(err)
		}
	}
}
