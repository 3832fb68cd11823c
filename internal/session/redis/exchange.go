package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	// firstPause and longestPause bound the waits between the tries of one call.
	firstPause   = 10 * time.Millisecond
	longestPause = 500 * time.Millisecond
	// firstRest and longestRest bound how long nobody asks a server that is away.
	firstRest   = 50 * time.Millisecond
	longestRest = 2 * time.Second
)

// exchange asks the server something, and asks again while it is away, with
// pauses that grow and vary. ask makes its commands anew each time, and can be
// repeated: whether a call that broke off was carried out is not known.
//
// The error is that of ctx when the caller gave up. It matches
// session.ErrUnavailable otherwise, and session.ErrAway if the server may be back
// in a moment.
func (s *Store) exchange(ctx context.Context, doing string, ask func(context.Context, valkey.Client) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	c, err := s.connection()
	if err != nil {
		return fmt.Errorf("%s: %w: %w", doing, session.ErrUnavailable, err)
	}
	probe, err := s.gate.enter()
	if err != nil {
		return fmt.Errorf("%s: %w: %w: %w", doing, session.ErrUnavailable, session.ErrAway, err)
	}
	defer s.gate.leave(probe)
	giveUp := time.Now().Add(patience * s.cfg.Timeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := s.once(ctx, c, ask)
		switch {
		case err == nil:
			s.gate.found()
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", doing, ctx.Err())
		case !isAway(err):
			s.gate.found()
			return fmt.Errorf("%s: %w: %w", doing, session.ErrUnavailable, err)
		}
		wait := jittered(pause)
		if probe || time.Now().Add(wait).After(giveUp) {
			s.gate.lost(err)
			return fmt.Errorf("%s: %w: %w: %w", doing, session.ErrUnavailable, session.ErrAway, err)
		}
		if sleep(ctx, wait) != nil {
			return fmt.Errorf("%s: %w", doing, ctx.Err())
		}
	}
}

// once bounds one try. The error is never that of the time-out alone, which
// would look like the caller's.
func (s *Store) once(ctx context.Context, c valkey.Client, ask func(context.Context, valkey.Client) error) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := ask(bounded, c)
	if err != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return fmt.Errorf("no answer within %v", s.cfg.Timeout)
	}
	return err
}

// isAway tells errors of a server that may be back in a moment from those that
// come again.
func isAway(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || errors.Is(err, valkey.ErrClosing) {
		return false
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return false
	}
	answer, ok := valkey.IsValkeyErr(err)
	if !ok {
		return true // of the connection
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	switch word {
	case "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "READONLY", "MOVED", "ASK", "FAILOVER":
		return true // it starts, or another one becomes the master
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// jittered is between half of d and d, so that not all come back at once.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// gate keeps a server that is away from being asked by everybody: while it is
// shut, calls fail at once, and now and then one of them looks.
type gate struct {
	open bool // it is never shut

	mu      sync.Mutex
	cause   error // nil: it is not shut
	rest    time.Duration
	until   time.Time
	probing bool
}

// enter says whether the caller is the one that looks. The error is why nobody
// may ask just now.
func (g *gate) enter() (probe bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.cause == nil:
		return false, nil
	case g.probing || time.Now().Before(g.until):
		return false, g.cause
	}
	g.probing = true
	return true, nil
}

func (g *gate) leave(probe bool) {
	if !probe {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
}

// found opens the gate: the server has answered.
func (g *gate) found() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cause, g.rest = nil, 0
}

// lost shuts it for a while, each time for longer.
func (g *gate) lost(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return
	}
	g.cause = cause
	g.rest = min(max(2*g.rest, firstRest), longestRest)
	g.until = time.Now().Add(jittered(g.rest))
}
