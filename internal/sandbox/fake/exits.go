package fake

import (
	"sync"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// exitQueue delivers exits without ever making the sender wait.
type exitQueue struct {
	out chan sandbox.Exit

	mu      sync.Mutex
	waiting []sandbox.Exit
	started bool
	wake    chan struct{}
	quit    chan struct{}
	once    sync.Once
	done    chan struct{}
}

func newExitQueue() *exitQueue {
	return &exitQueue{
		out: make(chan sandbox.Exit), wake: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
}

func (q *exitQueue) add(e sandbox.Exit) {
	q.mu.Lock()
	q.waiting = append(q.waiting, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *exitQueue) start() {
	q.mu.Lock()
	q.started = true
	q.mu.Unlock()
	go q.pump()
}

func (q *exitQueue) pump() {
	defer close(q.done)
	defer close(q.out)
	for {
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		for _, e := range batch {
			select {
			case q.out <- e:
			case <-q.quit:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.wake:
		case <-q.quit:
			return
		}
	}
}

// close ends the delivery; what was not taken is lost to this reader.
func (q *exitQueue) close() {
	q.once.Do(func() {
		close(q.quit)
		q.mu.Lock()
		started := q.started
		q.mu.Unlock()
		if started {
			<-q.done
		} else {
			close(q.out)
		}
	})
}
