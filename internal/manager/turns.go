package manager

import (
	"context"
	"slices"
	"sync"

	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// maxWaiting bounds the queue for a turn, of all owners together.
const maxWaiting = 1024

// turns lets so many do something costly at a time. The others wait: each owner
// in a queue of its own, and the queues take turns, so that a burst of one owner
// does not keep another waiting.
type turns struct {
	limit int

	mu      sync.Mutex
	busy    int
	waiting int
	queues  map[string][]*ticket
	order   []string // owners with a queue; the first is next
}

// ticket is one that waits. What comes of it is guarded by turns.mu.
type ticket struct {
	called  chan struct{} // closed when it is its turn, or refused
	refused bool
}

func newTurns(limit int) *turns { return &turns{limit: limit, queues: map[string][]*ticket{}} }

// enter waits for a turn; leave ends it and is called once. The error is that of
// ctx, or a 429 when too many wait.
func (t *turns) enter(ctx context.Context, owner string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.busy < t.limit {
		t.busy++
		t.mu.Unlock()
		return t.leave, nil
	}
	if t.waiting >= maxWaiting && !t.makeRoomLocked(owner) {
		t.mu.Unlock()
		return nil, crowded()
	}
	mine := &ticket{called: make(chan struct{})}
	if len(t.queues[owner]) == 0 {
		t.order = append(t.order, owner)
	}
	t.queues[owner] = append(t.queues[owner], mine)
	t.waiting++
	t.mu.Unlock()
	select {
	case <-mine.called:
	case <-ctx.Done():
		if t.withdraw(owner, mine) {
			return nil, ctx.Err()
		}
		<-mine.called // at the same moment
	}
	if mine.refused {
		return nil, crowded()
	}
	return t.leave, nil
}

func crowded() error {
	e := httpserve.Overloaded().WithHint("too many sandboxes are about to start")
	e.RetryAfter = 2
	return e
}

// makeRoomLocked sends away the last of the longest queue, if that queue is
// longer than the owner's would be.
func (t *turns) makeRoomLocked(owner string) bool {
	longest := owner
	for other, queue := range t.queues {
		if len(queue) > len(t.queues[longest]) {
			longest = other
		}
	}
	queue := t.queues[longest]
	if len(queue) <= len(t.queues[owner])+1 {
		return false
	}
	last := queue[len(queue)-1]
	t.dropLocked(longest, last)
	last.refused = true
	close(last.called)
	return true
}

// withdraw takes back a ticket; false when it has been called.
func (t *turns) withdraw(owner string, mine *ticket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.queues[owner], mine) {
		return false
	}
	t.dropLocked(owner, mine)
	return true
}

// dropLocked takes a ticket out of its queue.
func (t *turns) dropLocked(owner string, gone *ticket) {
	queue := slices.DeleteFunc(t.queues[owner], func(other *ticket) bool { return other == gone })
	t.waiting--
	if t.queues[owner] = queue; len(queue) == 0 {
		delete(t.queues, owner)
		t.order = slices.DeleteFunc(t.order, func(other string) bool { return other == owner })
	}
}

// leave hands the turn to the first of the next owner.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.busy--
		return
	}
	owner := t.order[0]
	t.order = append(t.order[1:], owner)
	next := t.queues[owner][0]
	t.dropLocked(owner, next)
	close(next.called)
}
