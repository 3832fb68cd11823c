package manager

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

// queue makes owners wait in order and returns where their turns are told.
func queue(t *testing.T, turns *turns, got chan<- string, owners ...string) {
	t.Helper()
	for _, owner := range owners {
		before := waiting(turns)
		go func() {
			leave, err := turns.enter(context.Background(), owner)
			if err != nil {
				got <- owner + " refused"
				return
			}
			got <- owner
			leave()
		}()
		for waiting(turns) == before {
			runtime.Gosched()
		}
	}
}

func waiting(t *turns) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting
}

func TestTurnsAreFair(t *testing.T) {
	turns := newTurns(1)
	leave, err := turns.enter(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 8)
	queue(t, turns, got, "a", "a", "a", "a", "b", "c", "b")
	leave()
	var order []string
	for range 7 {
		order = append(order, <-got)
	}
	if want := []string{"a", "b", "c", "a", "b", "a", "a"}; !slices.Equal(order, want) {
		t.Errorf("turns went to %q, want %q", order, want)
	}
}

func TestTurnsGivenUp(t *testing.T) {
	turns := newTurns(2)
	var leaves []func()
	for range 2 {
		leave, err := turns.enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.enter(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("enter = %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := turns.enter(ctx, "b"); gone <- err }()
	for waiting(turns) == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || waiting(turns) != 0 {
		t.Errorf("enter given up = %v, %d wait", err, waiting(turns))
	}
	for _, leave := range leaves {
		leave()
	}
	if turns.busy != 0 || len(turns.queues) != 0 || len(turns.order) != 0 {
		t.Errorf("left behind: %+v", turns)
	}
}

// TestTurnsFull: the queue is bounded, and who floods it does not keep others out.
func TestTurnsFull(t *testing.T) {
	turns := newTurns(1)
	leave, err := turns.enter(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, maxWaiting+2)
	queue(t, turns, got, slices.Repeat([]string{"flood"}, maxWaiting)...)
	_, err = turns.enter(t.Context(), "flood")
	var e *api.Error
	if !errors.As(err, &e) || e.Status != 429 || e.RetryAfter == 0 {
		t.Errorf("enter of the flood = %v, want a 429", err)
	}
	done := make(chan error, 1)
	go func() {
		leave, err := turns.enter(t.Context(), "other")
		if err == nil {
			leave()
		}
		done <- err
	}()
	if last := <-got; last != "flood refused" {
		t.Errorf("%s made room", last)
	}
	leave()
	if err := <-done; err != nil {
		t.Errorf("enter of another owner = %v", err)
	}
	for range maxWaiting - 1 {
		<-got
	}
}

// TestTurnsHoldLimit: never more than the limit at a time, and all get through.
func TestTurnsHoldLimit(t *testing.T) {
	turns := newTurns(3)
	var mu sync.Mutex
	busy := 0
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			leave, err := turns.enter(t.Context(), fmt.Sprint(i%7))
			if err != nil {
				t.Errorf("enter: %v", err)
				return
			}
			defer leave()
			mu.Lock()
			defer mu.Unlock()
			if busy++; busy > 3 {
				t.Errorf("%d at a time", busy)
			}
			mu.Unlock()
			mu.Lock()
			busy--
		})
	}
	wg.Wait()
}
