package session

import (
	"context"
	"errors"
	"time"
)

// Errors of Once, wrapped; test with errors.Is.
var (
	// ErrUsed says that something that counts once has been used before.
	ErrUsed = errors.New("used before")
	// ErrTooManyUses says that an owner has as much noted as is kept.
	ErrTooManyUses = errors.New("too many uses are remembered")
)

// Use is the use of something that counts once, such as the jti of a signature.
type Use struct {
	// Owner is whose it is: each has Most uses remembered at a time.
	Owner string
	ID    string
	// Now is the machine's time, and Until when the use need not be remembered
	// any more, by the same clock.
	Now, Until time.Time
	Most       int
}

// Once is a Store that remembers what has been used, for all that share it.
type Once interface {
	// UseOnce notes a use: of several that try, with whatever process, one gets
	// nil and the others ErrUsed. ErrTooManyUses when Owner has Most of them
	// noted that are not over.
	UseOnce(ctx context.Context, use Use) error
}

// Rate is how often something may happen: PerSecond on average, and Burst at once
// after a while without. Both are more than 0.
type Rate struct {
	PerSecond, Burst int
}

// Rates is a Store that counts how often something happens, for all that share it.
type Rates interface {
	// Take takes n permits out of a bucket, which fills at a rate, and returns 0.
	// Where there are fewer it takes none, and returns how long it will be until
	// there are enough. A bucket that was never used is full. n is at most
	// rate.Burst; now is the machine's time.
	Take(ctx context.Context, bucket string, n int, rate Rate, now time.Time) (wait time.Duration, err error)
}

// Errors of Seats, wrapped; test with errors.Is.
var (
	// ErrNoSeat says that as many sandboxes as there may be are there.
	ErrNoSeat = errors.New("all seats are taken")
	// ErrOwnerSeated says that an owner has as many as one may have.
	ErrOwnerSeated = errors.New("all seats of the owner are taken")
)

// Seat is the place that a sandbox takes among those that there may be.
type Seat struct {
	// Owner is whose sandbox it is, and ID the sandbox. Neither holds a NUL.
	Owner, ID string
}

// SeatLimits bound the seats; 0 means no bound.
type SeatLimits struct {
	// Awake bounds those of all owners that do not rest, PerOwner all of one.
	Awake, PerOwner int
}

// Seats is a Store that counts the sandboxes of all that share it. A seat says
// nothing about a sandbox: one can be left when its taker dies, and whoever keeps
// them finds that out with ListSeats.
type Seats interface {
	// TakeSeat takes a seat, or ends its rest. ErrOwnerSeated or ErrNoSeat when
	// there is none within limits; one that is taken and does not rest stays, whatever
	// the limits. Of several that try at once, no more than limits get one.
	TakeSeat(ctx context.Context, seat Seat, limits SeatLimits) error

	// RestSeat lets another take the place of a seat that remains its owner's. One
	// that is not taken stays so.
	RestSeat(ctx context.Context, seat Seat) error

	// LeaveSeat gives a seat back; one that is not taken changes nothing.
	LeaveSeat(ctx context.Context, seat Seat) error

	// ListSeats returns up to limit seats in a fixed order, from the first after a
	// certain one on; after the zero Seat it begins.
	ListSeats(ctx context.Context, after Seat, limit int) ([]Seat, error)
}

// Living is a Store that tells the sessions that have not ended without reading those
// that have, of which there are many more.
type Living interface {
	// Living returns them, in no order. One that changes meanwhile may be left out, and
	// records that cannot be read are.
	Living(ctx context.Context) ([]Session, error)
}
