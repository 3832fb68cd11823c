package router

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	// maxBeat is the longest pause between two notes of activity while a
	// request is under way.
	maxBeat = 10 * time.Second
	minBeat = 20 * time.Millisecond
	// maxGrain is how far noted activity may lag behind real activity.
	maxGrain     = 250 * time.Millisecond
	touchTimeout = 10 * time.Second
)

// activity notes in the store that a session is in use: when a request begins,
// when it ends, and while it lasts. Requests in quick succession share a note.
type activity struct {
	rt    *Router
	id    string
	beat  time.Duration // between notes while requests last
	grain time.Duration // notes closer than this are one

	mu       sync.Mutex
	inFlight int
	noted    time.Time
	timer    *time.Timer
	stopped  bool
}

func (a *activity) init(rt *Router, rec session.Session) {
	a.rt, a.id = rt, rec.ID
	patience := rec.IdleTimeout
	if rec.PauseAfter > 0 {
		patience = min(patience, rec.PauseAfter)
	}
	a.beat = max(min(patience/3, maxBeat), minBeat)
	a.grain = min(patience/20, maxGrain)
}

// begin notes the start of a request. The error is the answer when the session
// is gone; that the store does not answer is no reason to refuse.
func (a *activity) begin(ctx context.Context) error {
	a.mu.Lock()
	a.inFlight++
	if a.inFlight == 1 && !a.stopped {
		a.timer = time.AfterFunc(a.beat, a.heartbeat)
	}
	a.mu.Unlock()
	err := a.note(ctx)
	if errors.Is(err, session.ErrNotFound) {
		a.end(ctx)
		return unknownSession(a.id)
	}
	return nil
}

// end notes the end of a request, whether or not its client still listens.
func (a *activity) end(ctx context.Context) {
	a.mu.Lock()
	a.inFlight--
	if a.inFlight == 0 && a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	a.mu.Unlock()
	_ = a.note(context.WithoutCancel(ctx))
}

func (a *activity) heartbeat() {
	_ = a.note(context.Background())
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inFlight > 0 && !a.stopped {
		a.timer = time.AfterFunc(a.beat, a.heartbeat)
	}
}

func (a *activity) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}

// note tells the store of activity now, unless it has just been told.
func (a *activity) note(ctx context.Context) error {
	now := a.rt.cfg.Clock.Now()
	a.mu.Lock()
	before := a.noted
	if a.stopped || now.Sub(before) < a.grain {
		a.mu.Unlock()
		return nil
	}
	a.noted = now
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	err := a.rt.cfg.Sessions.Touch(ctx, a.id, now)
	if err != nil {
		a.mu.Lock()
		a.noted = before
		a.mu.Unlock()
		if ctx.Err() == nil {
			a.rt.log.Error("activity not noted", "session", a.id, "error", err)
		}
	}
	return err
}
