package manager

import (
	"sync"

	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// slots counts the sandboxes that exist, from before they are made until they
// are removed, and refuses those that there is no room for.
type slots struct {
	maxCount  int
	maxMemory int64

	mu     sync.Mutex
	memory map[string]int64 // by sandbox id
	sum    int64
}

func newSlots(maxCount int, maxMemory int64) *slots {
	return &slots{maxCount: maxCount, maxMemory: maxMemory, memory: map[string]int64{}}
}

// take reserves room for a sandbox; the error is a 429.
func (s *slots) take(id string, memory int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxCount > 0 && len(s.memory) >= s.maxCount {
		return httpserve.Overloaded().WithHint("%d sandboxes exist, which is the limit; end one or raise the limit", len(s.memory))
	}
	if s.maxMemory > 0 && s.sum+memory > s.maxMemory {
		return httpserve.Overloaded().WithHint("the memory set aside for sandboxes is taken; end one or raise the limit")
	}
	s.addLocked(id, memory)
	return nil
}

// adopt counts a sandbox that exists already, whatever the limits.
func (s *slots) adopt(id string, memory int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addLocked(id, memory)
}

func (s *slots) addLocked(id string, memory int64) {
	s.sum += memory - s.memory[id]
	s.memory[id] = memory
}

func (s *slots) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum -= s.memory[id]
	delete(s.memory, id)
}

func (s *slots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.memory)
}
