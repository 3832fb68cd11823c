package manager

import (
	"sync"

	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// slots counts the sandboxes that exist, from before they are made until they
// are removed, and refuses those that there is no room for.
type slots struct {
	maxCount, maxPerOwner int // 0 means no bound
	maxMemory             int64

	mu      sync.Mutex
	taken   map[string]slot // by sandbox id
	byOwner map[string]int
	memory  int64
}

type slot struct {
	owner  string
	memory int64
}

func newSlots(maxCount, maxPerOwner int, maxMemory int64) *slots {
	return &slots{
		maxCount: maxCount, maxPerOwner: maxPerOwner, maxMemory: maxMemory,
		taken: map[string]slot{}, byOwner: map[string]int{},
	}
}

// take reserves room for a sandbox; the error is a 429.
func (s *slots) take(id, owner string, memory int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.maxCount > 0 && len(s.taken) >= s.maxCount:
		return httpserve.Overloaded().WithHint("%d sandboxes exist, which is the limit; end one or raise the limit", s.maxCount)
	case s.maxPerOwner > 0 && s.byOwner[owner] >= s.maxPerOwner:
		return httpserve.Overloaded().WithHint("you have %d sessions, which is the limit; end one", s.maxPerOwner)
	case s.maxMemory > 0 && s.memory+memory > s.maxMemory:
		return httpserve.Overloaded().WithHint("the memory set aside for sandboxes is taken; end one or raise the limit")
	}
	s.addLocked(id, slot{owner, memory})
	return nil
}

// adopt counts a sandbox that exists already, whatever the limits.
func (s *slots) adopt(id, owner string, memory int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addLocked(id, slot{owner, memory})
}

func (s *slots) addLocked(id string, added slot) {
	s.releaseLocked(id)
	s.taken[id] = added
	s.byOwner[added.owner]++
	s.memory += added.memory
}

// release gives the room back; what was not taken changes nothing.
func (s *slots) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(id)
}

func (s *slots) releaseLocked(id string) {
	old, ok := s.taken[id]
	if !ok {
		return
	}
	delete(s.taken, id)
	s.memory -= old.memory
	if s.byOwner[old.owner]--; s.byOwner[old.owner] == 0 {
		delete(s.byOwner, old.owner)
	}
}

func (s *slots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}
