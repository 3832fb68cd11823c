package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
)

// TestOwnersAreForgotten: whatever comes, is refused, is revoked and goes at the
// same time, none has more than the limit, and nothing is kept of those who have
// gone.
func TestOwnersAreForgotten(t *testing.T) {
	const limit = 3
	o := newOwners(limit, func(string) {})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 300 {
				v, r := o.visit(&http.Request{})
				name := fmt.Sprint("owner", rand.N(4))
				entered, err := true, error(nil)
				if rand.N(2) == 0 {
					entered, err = v.enterByToken(name, o.revocations())
				} else if err = v.enter(name); err == nil {
					err = v.enter(name) // it counts once
				}
				o.mu.Lock()
				if n := len(o.byName[name]); n > limit {
					t.Errorf("%s has %d requests under way", name, n)
				}
				o.mu.Unlock()
				if rand.N(8) == 0 {
					o.revoke(name)
					if entered && err == nil && v.token != errors.Is(context.Cause(r.Context()), errRevoked) {
						t.Errorf("by token %v, ended because of %v", v.token, context.Cause(r.Context()))
					}
				}
				v.end()
				if r.Context().Err() == nil {
					t.Error("a visit has ended and its context has not")
				}
			}
		})
	}
	wg.Wait()
	if len(o.byName) != 0 {
		t.Errorf("left are %v", o.byName)
	}
}
