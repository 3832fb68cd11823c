package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/volcano-sh/agentcube/internal/session"
)

// RunSeats runs the suite of session.Seats. newSeats returns one of which no seat
// is taken.
func RunSeats(t *testing.T, newSeats func(t *testing.T) session.Seats) {
	t.Run("limits", func(t *testing.T) { testSeatLimits(t, newSeats(t)) })
	t.Run("100 at once", func(t *testing.T) { testSeatRace(t, newSeats(t)) })
	t.Run("pages", func(t *testing.T) { testSeatPages(t, newSeats(t)) })
	t.Run("refused", func(t *testing.T) {
		s := newSeats(t)
		if err := s.TakeSeat(t.Context(), session.Seat{Owner: "a\x00b", ID: "c"}, session.SeatLimits{}); err == nil {
			t.Error("TakeSeat of an owner with a NUL: no error")
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.TakeSeat(gone, session.Seat{Owner: "ann", ID: "a"}, session.SeatLimits{}); !errors.Is(err, context.Canceled) {
			t.Errorf("TakeSeat: %v, want context.Canceled", err)
		}
	})
}

func testSeatLimits(t *testing.T, s session.Seats) {
	limits := session.SeatLimits{Awake: 4, PerOwner: 2}
	take := func(l session.SeatLimits) func(context.Context, session.Seat) error {
		return func(ctx context.Context, seat session.Seat) error { return s.TakeSeat(ctx, seat, l) }
	}
	for i, step := range []struct {
		owner, id string
		do        func(context.Context, session.Seat) error
		want      error
	}{
		{"ann", "1", take(limits), nil},
		{"ann", "1", take(limits), nil}, // it has it
		{"ann", "2", take(limits), nil},
		{"ann", "3", take(limits), session.ErrOwnerSeated},
		{"ann2", "1", take(limits), nil}, // another one, whose name begins alike
		{"an", "1", take(limits), nil},
		{"bob", "1", take(limits), session.ErrNoSeat},
		{"ann", "1", s.RestSeat, nil},
		{"ann", "1", s.RestSeat, nil},
		{"bob", "9", s.RestSeat, nil},                      // has none, and gets none
		{"ann", "3", take(limits), session.ErrOwnerSeated}, // what rests is still ann's
		{"bob", "1", take(limits), nil},                    // but others may have its place
		{"ann", "1", take(limits), session.ErrNoSeat},      // so that it cannot go on
		{"ann", "1", take(session.SeatLimits{}), nil},      // unless nobody asks
		{"cid", "1", take(limits), session.ErrNoSeat},      // five of four
		{"ann", "1", s.LeaveSeat, nil},
		{"ann", "1", s.LeaveSeat, nil},
		{"cid", "1", take(limits), session.ErrNoSeat},
		{"an", "1", s.LeaveSeat, nil},
		{"cid", "1", take(limits), nil},
		{"cid", "1", s.RestSeat, nil},
		{"cid", "1", s.LeaveSeat, nil}, // and its rest is over, too
		{"cid", "1", take(limits), nil},
		{"cid", "2", take(limits), session.ErrNoSeat},
	} {
		if err := step.do(t.Context(), session.Seat{Owner: step.owner, ID: step.id}); !errors.Is(err, step.want) || step.want == nil && err != nil {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
}

func testSeatRace(t *testing.T, s session.Seats) {
	limits := session.SeatLimits{Awake: 12, PerOwner: 5}
	var taken [4]atomic.Int32
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			owner := i % len(taken)
			switch err := s.TakeSeat(t.Context(), session.Seat{Owner: fmt.Sprint("o", owner), ID: fmt.Sprint(i)}, limits); {
			case err == nil:
				taken[owner].Add(1)
			case !errors.Is(err, session.ErrNoSeat) && !errors.Is(err, session.ErrOwnerSeated):
				t.Errorf("TakeSeat: %v", err)
			}
		})
	}
	wg.Wait()
	var all int32
	for i := range taken {
		n := taken[i].Load()
		if all += n; n > 5 {
			t.Errorf("owner %d has %d seats of 5", i, n)
		}
	}
	if all != 12 {
		t.Errorf("%d seats of 12 were taken", all)
	}
}

func testSeatPages(t *testing.T, s session.Seats) {
	var want []session.Seat
	for _, owner := range []string{"ann", "ann.x", "bob"} {
		for i := range 5 {
			seat := session.Seat{Owner: owner, ID: fmt.Sprint(i)}
			want = append(want, seat)
			if err := s.TakeSeat(t.Context(), seat, session.SeatLimits{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []session.Seat
	for after := (session.Seat{}); ; after = got[len(got)-1] {
		page, err := s.ListSeats(t.Context(), after, 4)
		if err != nil || len(page) > 4 {
			t.Fatalf("ListSeats: %d, %v", len(page), err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}
