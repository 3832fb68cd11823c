package manager

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// settable is a clock for rates.
type settable struct{ at atomic.Int64 }

func (s *settable) now() time.Time       { return time.Unix(1_800_000_000, s.at.Load()) }
func (s *settable) pass(d time.Duration) { s.at.Add(int64(d)) }
func newTimedRates(n int) (*rates, *settable) {
	r, s := newRates(n), &settable{}
	r.now = s.now
	return r, s
}

func TestRates(t *testing.T) {
	r, clock := newTimedRates(10)
	for i := range 100 { // ten seconds' worth may come at once
		if err := r.take("ann", 1); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	refused := func(n, wait int) {
		t.Helper()
		err := r.take("ann", n)
		if err == nil {
			t.Fatalf("%d more were let in", n)
		}
		e := httpserve.AsError(err)
		if e.Status != 429 || e.Code != api.CodeServerOverloaded || e.RetryAfter != wait || !strings.Contains(e.Hint, "10 sessions") {
			t.Errorf("%d more: %+v, want 429 and Retry-After %d", n, e, wait)
		}
	}
	refused(1, 1)
	refused(64, 7)
	if err := r.take("bob", 64); err != nil {
		t.Errorf("another owner: %v", err)
	}
	clock.pass(100 * time.Millisecond)
	if err := r.take("ann", 1); err != nil {
		t.Errorf("after a tenth of a second: %v", err)
	}
	refused(1, 1)
	clock.pass(6 * time.Second)
	refused(64, 1) // being refused costs nothing
	clock.pass(400 * time.Millisecond)
	if err := r.take("ann", 64); err != nil {
		t.Errorf("after as long as was said: %v", err)
	}
	refused(1, 1)
}

// TestRatesAllowTheLargest: a fork of as many as one may ask for is possible at any
// rate, and no rate is no bound.
func TestRatesAllowTheLargest(t *testing.T) {
	for _, perSecond := range []int{1, 2, 6, 7, 1000, 1 << 62} {
		r, clock := newTimedRates(perSecond)
		for i := range 3 {
			if err := r.take("ann", maxForks); err != nil {
				t.Errorf("%d a second, fork %d: %v", perSecond, i, err)
			}
			clock.pass(maxForks * time.Second)
		}
	}
	r, _ := newTimedRates(0)
	for range 10_000 {
		if err := r.take("ann", maxForks); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.byOwner) != 0 {
		t.Error("without a bound owners are remembered")
	}
}

// TestRatesForget: of however many owners, those are remembered who had something
// made a moment ago, and nobody gains by being forgotten.
func TestRatesForget(t *testing.T) {
	r, clock := newTimedRates(10)
	for i := range 100_000 {
		if err := r.take(fmt.Sprint("owner", i), 1); err != nil {
			t.Fatal(err)
		}
		clock.pass(10 * time.Millisecond) // a hundred a second, each full again after 0.1 s
		if n := len(r.byOwner); n > 2*firstSweep {
			t.Fatalf("%d owners are remembered", n)
		}
	}
	for range 100 {
		_ = r.take("greedy", 1)
	}
	for i := range 1000 {
		_ = r.take(fmt.Sprint("another", i), 1)
	}
	if r.take("greedy", 1) == nil {
		t.Error("a bucket that was not full was forgotten")
	}
}

// TestRatesAtOnce: no owner gets more than is allowed, however many ask at once.
func TestRatesAtOnce(t *testing.T) {
	r, _ := newTimedRates(20)
	var got [4]atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				who := rand.N(len(got))
				if r.take(fmt.Sprint(who), 1) == nil {
					got[who].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for who := range got {
		if n := got[who].Load(); n != 200 {
			t.Errorf("owner %d got %d, want 200", who, n)
		}
	}
}
