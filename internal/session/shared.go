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
