package router

import (
	"fmt"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// TestTargetsAreForgotten: a Router that nobody tells of the ends of sessions does not
// remember each that it has ever met, but those that are in use.
func TestTargetsAreForgotten(t *testing.T) {
	for age, want := range map[time.Duration]int{time.Second: 2*firstSweep + 2, 0: 4*firstSweep + 1} {
		rt := New(Config{MaxRecordAge: age})
		add := func(i int) *target {
			got, ok := rt.targets.add(session.Session{ID: fmt.Sprint(i)}, 0, time.Now())
			if !ok {
				t.Fatal("not added")
			}
			return got
		}
		busy := add(0)
		if !rt.targets.enter(busy) {
			t.Fatal("not entered")
		}
		// Half of them are used no more.
		for i := range 2 * firstSweep {
			add(i + 1).used = time.Now().Add(-2 * maxUnused)
		}
		busy.used = time.Now().Add(-2 * maxUnused)
		for i := range 2 * firstSweep {
			add(2*firstSweep + i + 1)
		}
		if got := len(rt.targets.byID); got > want || age == 0 && got != want {
			t.Errorf("with age %v: %d are known, want at most %d", age, got, want)
		}
		if !rt.targets.current(busy) || busy.closed {
			t.Error("one with a request under way was forgotten")
		}
		rt.targets.leave(busy)
		rt.Close()
	}
}
