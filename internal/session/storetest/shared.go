package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// once is the store under test as one that remembers what was used, which all of
// them do.
func once(t *testing.T, st session.Store) session.Once {
	t.Helper()
	o, ok := st.(session.Once)
	if !ok {
		t.Fatalf("%T does not remember what was used", st)
	}
	return o
}

func use(owner, id string, now, until time.Duration, most int) session.Use {
	return session.Use{Owner: owner, ID: id, Now: epoch.Add(now), Until: epoch.Add(until), Most: most}
}

func testOnce(t *testing.T, ctx context.Context, st session.Store) {
	o := once(t, st)
	for i, step := range []struct {
		use  session.Use
		want error
	}{
		{use("ann", "a", 0, time.Minute, 3), nil},
		{use("ann", "a", 0, time.Minute, 3), session.ErrUsed},
		{use("bob", "a", 0, time.Minute, 3), nil}, // another's
		{use("ann", "a", time.Minute-time.Millisecond, time.Hour, 3), session.ErrUsed},
		{use("ann", "a'\x00 %", time.Second, 2*time.Minute, 3), nil},
		{use("ann", "b", 2*time.Second, 2*time.Minute, 3), nil},
		{use("ann", "c", 3*time.Second, 2*time.Minute, 3), session.ErrTooManyUses},
		{use("ann", "b", 3*time.Second, 2*time.Minute, 3), session.ErrUsed}, // more precise than too many
		{use("bob", "c", 3*time.Second, 2*time.Minute, 3), nil},
		{use("ann", "c", time.Minute, 2*time.Minute, 3), nil}, // a is over
		{use("ann", "a", time.Minute, 2*time.Minute, 3), session.ErrTooManyUses},
		{use("ann", "a", 2*time.Minute, 3*time.Minute, 3), nil}, // all are over
	} {
		if err := o.UseOnce(ctx, step.use); !errors.Is(err, step.want) || step.want == nil && err != nil {
			t.Errorf("step %d: UseOnce(%+v): %v, want %v", i, step.use, err, step.want)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := o.UseOnce(gone, use("ann", "z", 0, time.Hour, 9)); !errors.Is(err, context.Canceled) {
		t.Errorf("UseOnce: %v, want context.Canceled", err)
	}
}

func testOnceRace(t *testing.T, ctx context.Context, st session.Store) {
	o := once(t, st)
	var used, full atomic.Int32
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := o.UseOnce(ctx, use("ann", "one for all", 0, time.Minute, 50)); err == nil {
				used.Add(1)
			} else if !errors.Is(err, session.ErrUsed) {
				t.Errorf("UseOnce: %v", err)
			}
			if err := o.UseOnce(ctx, use("bob", fmt.Sprint(i), 0, time.Minute, 20)); err == nil {
				full.Add(1)
			} else if !errors.Is(err, session.ErrTooManyUses) {
				t.Errorf("UseOnce: %v", err)
			}
		})
	}
	wg.Wait()
	if used.Load() != 1 || full.Load() != 20 {
		t.Errorf("%d of one use and %d of 20 were noted", used.Load(), full.Load())
	}
}

// RunRates runs the suite of session.Rates. newRates returns one that nothing has
// been taken of.
func RunRates(t *testing.T, newRates func(t *testing.T) session.Rates) {
	rate := session.Rate{PerSecond: 10, Burst: 20}
	take := func(t *testing.T, r session.Rates, bucket string, n int, at time.Duration) time.Duration {
		t.Helper()
		wait, err := r.Take(t.Context(), bucket, n, rate, epoch.Add(at))
		if err != nil || wait < 0 {
			t.Fatalf("Take: %v, %v", wait, err)
		}
		return wait
	}
	t.Run("fills evenly", func(t *testing.T) {
		r := newRates(t)
		for i, step := range []struct {
			n        int
			at, wait time.Duration
		}{
			{20, 0, 0}, {1, 0, 100 * time.Millisecond}, {10, 0, time.Second}, {1, 50 * time.Millisecond, 50 * time.Millisecond},
			{1, 100 * time.Millisecond, 0}, {1, 100 * time.Millisecond, 100 * time.Millisecond}, {20, time.Hour, 0},
			{1, time.Hour - time.Second, 100 * time.Millisecond}, // a clock that is behind
			{1, time.Hour + 100*time.Millisecond, 0},
			{20, 0, 2 * time.Second}, {20, 2 * time.Second, 0}, // a clock that was set back
		} {
			if got := take(t, r, "ann", step.n, step.at); math.Abs(float64(got-step.wait)) > float64(2*time.Microsecond) {
				t.Errorf("step %d: wait %v, want %v", i, got, step.wait)
			}
		}
		if got := take(t, r, "bob", 20, 0); got != 0 {
			t.Errorf("another's bucket: wait %v", got)
		}
	})
	t.Run("100 at once", func(t *testing.T) {
		r := newRates(t)
		var taken atomic.Int32
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if wait, err := r.Take(t.Context(), "ann", 1, rate, epoch); err != nil {
					t.Errorf("Take: %v", err)
				} else if wait == 0 {
					taken.Add(1)
				}
			})
		}
		wg.Wait()
		if taken.Load() != 20 {
			t.Errorf("%d were taken of a bucket of 20", taken.Load())
		}
	})
	t.Run("more than a bucket holds", func(t *testing.T) {
		if _, err := newRates(t).Take(t.Context(), "ann", 21, rate, epoch); err == nil {
			t.Error("Take(21) of 20: no error")
		}
	})
	t.Run("cancelled context", func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := newRates(t).Take(gone, "ann", 1, rate, epoch); !errors.Is(err, context.Canceled) {
			t.Errorf("Take: %v, want context.Canceled", err)
		}
	})
}
