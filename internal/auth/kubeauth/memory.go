package kubeauth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/util/cache"
)

const (
	// maxAnswers bounds the answers of one kind that are remembered.
	maxAnswers = 4096
	// maxAsked bounds the questions under way, and askTimeout how long one may take, its
	// wait for its turn included.
	maxAsked   = 64
	askTimeout = 5 * time.Second
	// noFor is for how long a no is remembered. What makes it a yes, such as a new
	// RoleBinding, shall not be waited for.
	noFor = 5 * time.Second
)

// answer is what the API server says.
type answer[V any] struct {
	yes   bool
	value V // of a yes
	// until is when a yes ends by itself; zero: never.
	until time.Time
}

// memory remembers answers. A yes and a no are kept apart, so that those who guess
// push out nobody who is known.
type memory[V any] struct {
	yes, no *cache.LRUExpireCache
	yesFor  time.Duration
	asked   singleflight.Group
	turns   chan struct{}
}

func newMemory[V any](yesFor time.Duration) *memory[V] {
	return &memory[V]{
		yes: cache.NewLRUExpireCache(maxAnswers), no: cache.NewLRUExpireCache(maxAnswers),
		yesFor: yesFor, turns: make(chan struct{}, maxAsked),
	}
}

// known is a yes that is remembered.
type known[V any] struct {
	value V
	renew time.Time // from when on the question is asked anew
}

// errUnanswered says that the API server could not be asked.
var errUnanswered = errors.New("the API server did not answer")

// get returns the answer to the question that key stands for, and asks it if nobody
// knows. All who want the same answer wait for the same question, which goes on when
// they have gone. The error matches errUnanswered, or is that of ctx.
func (m *memory[V]) get(ctx context.Context, key string, ask func(context.Context) (answer[V], error)) (value V, yes bool, err error) {
	if v, ok := m.yes.Get(key); ok {
		k := v.(known[V])
		if time.Now().After(k.renew) {
			m.ask(key, ask)
		}
		return k.value, true, nil
	}
	if _, ok := m.no.Get(key); ok {
		return value, false, nil
	}
	select {
	case r := <-m.ask(key, ask):
		if r.Err != nil {
			return value, false, fmt.Errorf("%w: %w", errUnanswered, r.Err)
		}
		a := r.Val.(answer[V])
		return a.value, a.yes, nil
	case <-ctx.Done():
		return value, false, ctx.Err()
	}
}

func (m *memory[V]) ask(key string, ask func(context.Context) (answer[V], error)) <-chan singleflight.Result {
	return m.asked.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		select {
		case m.turns <- struct{}{}:
			defer func() { <-m.turns }()
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a turn: %w", ctx.Err())
		}
		a, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		m.keep(key, a)
		return a, nil
	})
}

func (m *memory[V]) keep(key string, a answer[V]) {
	if !a.yes {
		m.yes.Remove(key)
		m.no.Add(key, nil, noFor)
		return
	}
	life := m.yesFor
	if !a.until.IsZero() {
		life = min(life, time.Until(a.until))
	}
	if life > 0 {
		m.yes.Add(key, known[V]{a.value, time.Now().Add(life / 2)}, life)
	}
}
