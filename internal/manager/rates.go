package manager

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// rateWindow is the time over which an owner's rate counts: so much may come
	// at once after so long without.
	rateWindow = 10 * time.Second
	// firstSweep is from how many owners on those that idle are looked for.
	firstSweep = 64
)

// rates bounds how often each owner may have something made: a bucket of permits
// each, which fills evenly. A bucket that is full again is forgotten, as a new one
// is no different; so those are known who had something made within rateWindow.
type rates struct {
	perSecond int // 0 means no bound
	now       func() time.Time

	mu      sync.Mutex
	byOwner map[string]*rate.Limiter
	sweepAt int // number of owners
}

func newRates(perSecond int) *rates {
	return &rates{perSecond: perSecond, now: time.Now, byOwner: map[string]*rate.Limiter{}, sweepAt: firstSweep}
}

// burst is what a full bucket holds: the largest request there is, at least.
func (r *rates) burst() int {
	return max(r.perSecond*int(rateWindow/time.Second), maxForks)
}

// take takes n permits of an owner's, at most maxForks. The error is a 429 that
// says when there will be enough.
func (r *rates) take(owner string, n int) error {
	if r.perSecond <= 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	bucket := r.byOwner[owner]
	if bucket == nil {
		r.sweepLocked(now)
		bucket = rate.NewLimiter(rate.Limit(r.perSecond), r.burst())
		r.byOwner[owner] = bucket
	}
	if bucket.AllowN(now, n) {
		return nil
	}
	missing := float64(n) - bucket.TokensAt(now)
	return tooOften(r.perSecond, missing/float64(r.perSecond))
}

// sweepLocked forgets full buckets, each time that twice as many are there as were
// left the last time.
func (r *rates) sweepLocked(now time.Time) {
	if len(r.byOwner) < r.sweepAt {
		return
	}
	full := float64(r.burst())
	for owner, bucket := range r.byOwner {
		if bucket.TokensAt(now) >= full {
			delete(r.byOwner, owner)
		}
	}
	r.sweepAt = max(2*len(r.byOwner), firstSweep)
}
