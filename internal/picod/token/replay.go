package token

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxTokens bounds the memory of used tokens, each of which takes some 60 bytes
// for the few minutes that it is valid.
const maxTokens = 200_000

// replays remembers the used tokens for as long as they are valid, by half of the
// SHA-256 of their names, so that each takes the same.
type replays struct {
	mu    sync.Mutex
	max   int
	until map[[16]byte]int64 // in Unix seconds
	swept time.Time
}

func newReplays(limit int) *replays { return &replays{max: limit, until: map[[16]byte]int64{}} }

// use notes one use, or says that there was one before.
func (r *replays) use(name string, now, until time.Time) error {
	if len(name) > 256 {
		return invalid("jti is too long")
	}
	sum := sha256.Sum256([]byte(name))
	id := [16]byte(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, seen := r.until[id]; seen {
		return invalid("token was used before")
	}
	if len(r.until) >= r.max || now.Sub(r.swept) > time.Minute {
		r.sweep(now)
	}
	if len(r.until) >= r.max {
		return ErrTooManyTokens
	}
	r.until[id] = until.Unix() + 1
	return nil
}

// sweep forgets tokens that are not valid any more; at most once a second, so
// that a full memory does not make every request walk it.
func (r *replays) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for id, until := range r.until {
		if now.Unix() > until {
			delete(r.until, id)
		}
	}
}
