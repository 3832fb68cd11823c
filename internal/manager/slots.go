package manager

import (
	"sync"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// slots counts the sandboxes that exist, from before they are made until they
// are removed, and refuses those that there is no room for. One that sleeps,
// being paused, takes no room but still is its owner's.
type slots struct {
	maxCount, maxPerOwner int // 0 means no bound
	maxMemory             int64

	mu      sync.Mutex
	taken   map[string]*slot // by sandbox id
	byOwner map[string]int
	awake   int
	memory  int64 // of those awake
}

type slot struct {
	owner  string
	memory int64
	asleep bool
}

func newSlots(maxCount, maxPerOwner int, maxMemory int64) *slots {
	return &slots{
		maxCount: maxCount, maxPerOwner: maxPerOwner, maxMemory: maxMemory,
		taken: map[string]*slot{}, byOwner: map[string]int{},
	}
}

// take reserves room for a sandbox; the error is a 429.
func (s *slots) take(id, owner string, memory int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxPerOwner > 0 && s.byOwner[owner] >= s.maxPerOwner {
		return ownerFull(s.maxPerOwner)
	}
	if full := s.roomLocked(memory); full != nil {
		return full
	}
	s.addLocked(id, slot{owner: owner, memory: memory})
	return nil
}

// roomLocked is the 429 for a sandbox that there is no room for, or nil.
func (s *slots) roomLocked(memory int64) *api.Error {
	switch {
	case s.maxCount > 0 && s.awake >= s.maxCount:
		return countFull(s.maxCount)
	case s.maxMemory > 0 && s.memory+memory > s.maxMemory:
		return httpserve.Overloaded().WithHint("the memory set aside for sandboxes is taken; end or pause one or raise the limit")
	}
	return nil
}

// ownerFull is the 429 for an owner who has as many sessions as one may have.
func ownerFull(limit int) *api.Error {
	return httpserve.Overloaded().WithHint("you have %d sessions, which is the limit; end one", limit)
}

// countFull is the 429 when there are as many sandboxes as there may be.
func countFull(limit int) *api.Error {
	return httpserve.Overloaded().WithHint("%d sandboxes exist, which is the limit; end or pause one or raise the limit", limit)
}

// adopt counts a sandbox that exists already, whatever the limits.
func (s *slots) adopt(id, owner string, memory int64, asleep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addLocked(id, slot{owner: owner, memory: memory, asleep: asleep})
}

// sleep gives back the room of a sandbox that is paused now.
func (s *slots) sleep(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.taken[id]; one != nil && !one.asleep {
		s.countLocked(one, -1)
		one.asleep = true
	}
}

// wake takes room for a sandbox that is to be resumed, unless it has it. The
// error is a 429; what was removed meanwhile needs none.
func (s *slots) wake(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.taken[id]
	if one == nil || !one.asleep {
		return nil
	}
	if full := s.roomLocked(one.memory); full != nil {
		return full
	}
	one.asleep = false
	s.countLocked(one, 1)
	return nil
}

// awaken counts a sandbox that has turned out to run, whatever the limits.
func (s *slots) awaken(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.taken[id]; one != nil && one.asleep {
		one.asleep = false
		s.countLocked(one, 1)
	}
}

func (s *slots) addLocked(id string, added slot) {
	s.releaseLocked(id)
	s.taken[id] = &added
	s.byOwner[added.owner]++
	if !added.asleep {
		s.countLocked(&added, 1)
	}
}

func (s *slots) countLocked(one *slot, n int) {
	s.awake += n
	s.memory += int64(n) * one.memory
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
	if !old.asleep {
		s.countLocked(old, -1)
	}
	if s.byOwner[old.owner]--; s.byOwner[old.owner] == 0 {
		delete(s.byOwner, old.owner)
	}
}

// running says how many sandboxes are not paused.
func (s *slots) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.awake
}
