package token

import (
	"sync"
	"time"
)

// maxTokens bounds the memory of used tokens.
const maxTokens = 100_000

// replays remembers the names of used tokens for as long as they are valid.
type replays struct {
	mu    sync.Mutex
	max   int
	until map[string]time.Time
	swept time.Time
}

func newReplays(limit int) *replays { return &replays{max: limit, until: map[string]time.Time{}} }

// use notes one use, or says that there was one before.
func (r *replays) use(name string, now, until time.Time) error {
	if len(name) > 256 {
		return invalid("jti is too long")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, seen := r.until[name]; seen {
		return invalid("token was used before")
	}
	if len(r.until) >= r.max || now.Sub(r.swept) > time.Minute {
		r.sweep(now)
	}
	if len(r.until) >= r.max {
		return ErrTooManyTokens
	}
	r.until[name] = until
	return nil
}

// sweep forgets tokens that are not valid any more; at most once a second, so
// that a full memory does not make every request walk it.
func (r *replays) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for name, until := range r.until {
		if now.After(until) {
			delete(r.until, name)
		}
	}
}
