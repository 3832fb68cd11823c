package audit

import (
	"sync"
	"time"
)

// strangersEvery is how often requests of nobody have a line.
const strangersEvery = time.Second

// Strangers count the requests that were refused to callers who could not say who
// they are: as many as they like, so that each cannot have a line of its own. The
// zero value is ready, and it is safe for concurrent use.
type Strangers struct {
	mu   sync.Mutex
	last time.Time
	n    uint64
}

// Take counts one. When it is time for a line it returns how many the line is about,
// and else 0.
func (s *Strangers) Take(now time.Time) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if now.Sub(s.last) < strangersEvery {
		return 0
	}
	n := s.n
	s.last, s.n = now, 0
	return n
}
