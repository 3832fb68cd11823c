package manager_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/manager"
)

// TestCreateRate: what an owner has made, by whatever request, has one rate;
// others have their own.
func TestCreateRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.MaxCreateRate = 1 } // 64 at once
	n := w.start()
	parent := n.create().SessionID
	if got := n.do(t.Context(), "alice", "POST", forkPath(parent), `{"count":60}`); got.status != 200 {
		t.Fatalf("fork = %d %s", got.status, got.body)
	}
	// A permit comes a second; it takes less to use it up.
	useUp := func(what string, ask func(i int) answer) {
		t.Helper()
		i := 0
		w.eventually(what+" is refused", func() bool {
			got := ask(i)
			if i++; got.status != 429 {
				return false
			}
			wantCode(t, got, 429, api.CodeServerOverloaded)
			if got.header.Get("Retry-After") != "1" || !strings.Contains(got.body, "sessions and checkpoints made a second") {
				t.Errorf("%s = %v %s", what, got.header, got.body)
			}
			return true
		})
	}
	useUp("create", func(int) answer {
		return n.do(t.Context(), "alice", "POST", createPath, `{"name":"missing","namespace":"default"}`)
	})
	useUp("checkpoint", func(i int) answer { return n.checkpoint(parent, fmt.Sprint("c", i)) })
	got := n.do(t.Context(), "alice", "POST", forkPath(parent), `{"count":64}`)
	wantCode(t, got, 429, api.CodeServerOverloaded)
	if wait := got.header.Get("Retry-After"); len(wait) != 2 { // about a minute
		t.Errorf("Retry-After of a large fork: %q", wait)
	}
	if got := n.do(t.Context(), "bob", "POST", createPath, createBody); got.status != 200 {
		t.Errorf("another owner = %d %s", got.status, got.body)
	}
}
