package auth

import (
	"errors"
	"strconv"
	"testing"
	"time"
)

// TestAgreementsPerOwner: an owner who signs without end uses up what is his, and
// nobody else notices.
func TestAgreementsPerOwner(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := newAgreements(nil, 10, 4)
	n := 0
	use := func(owner string, at time.Time) error {
		n++
		return a.use(owner, strconv.Itoa(n), at.Add(6*time.Minute), at)
	}
	for i := range 8 {
		if err := use("mallory", now); (err == nil) != (i < 4) || err != nil && !errors.Is(err, ErrTooManyAgreements) {
			t.Errorf("mallory's signature %d: %v", i+1, err)
		}
	}
	for _, owner := range []string{"alice", "bob", "carol"} {
		for range 2 {
			if err := use(owner, now); err != nil {
				t.Errorf("%s has no room: %v", owner, err)
			}
		}
	}
	if err := use("dave", now); !errors.Is(err, ErrTooManyAgreements) {
		t.Errorf("beyond the bound of all owners: %v", err)
	}
	later := now.Add(6*time.Minute + time.Second)
	for range 4 {
		if err := use("mallory", later); err != nil {
			t.Errorf("after what was remembered has expired: %v", err)
		}
	}
	if len(a.used) != 1 || a.count != 4 {
		t.Errorf("%d owners and %d signatures are remembered, want 1 and 4", len(a.used), a.count)
	}
}

// TestAgreementsSweepSeldom: a full memory is not walked for every request, and a
// clock that was set back does not keep it full.
func TestAgreementsSweepSeldom(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := newAgreements(nil, 10, 1)
	if err := a.use("alice", "1", now.Add(500*time.Millisecond), now); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]error{time.Millisecond: ErrTooManyAgreements, 900 * time.Millisecond: ErrTooManyAgreements} {
		if err := a.use("alice", "2", now.Add(time.Minute), now.Add(after)); !errors.Is(err, want) {
			t.Errorf("after %v: %v, want %v", after, err, want)
		}
		if !a.swept.Equal(now) {
			t.Errorf("after %v: walked again", after)
		}
	}
	if err := a.use("alice", "2", now.Add(1100*time.Millisecond), now.Add(time.Second)); err != nil {
		t.Errorf("after a second: %v", err)
	}
	back := now.Add(-time.Hour)
	if err := a.use("alice", "3", back.Add(time.Minute), back); !errors.Is(err, ErrTooManyAgreements) || !a.swept.Equal(back) {
		t.Errorf("with the clock set back: %v, walked at %v", err, a.swept)
	}
}
