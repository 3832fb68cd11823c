package manager

import (
	"context"
	"errors"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	firstDoze = 5 * time.Second
	maxDoze   = 5 * time.Minute
)

// dozes are the sessions that are being paused because they idle, or could not
// be a moment ago. It belongs to one goroutine.
type dozes struct {
	underWay map[string]bool
	failed   map[string]doze
	done     chan dozed
}

// doze is when to try again.
type doze struct {
	at    time.Time
	pause time.Duration
}

type dozed struct {
	id  string
	err error
}

func newDozes(limit int) *dozes {
	return &dozes{underWay: map[string]bool{}, failed: map[string]doze{}, done: make(chan dozed, limit)}
}

// pauseIdle begins to pause the sessions that have idled long enough, not more
// at a time than limit.
func (m *Manager) pauseIdle(ctx context.Context, d *dozes) {
	now := m.clock.Now()
	for len(d.done) > 0 {
		d.over(<-d.done, now)
	}
	limit := cap(d.done)
	if len(d.underWay) >= limit || !m.cfg.Driver.Capabilities().Pause {
		return
	}
	// Those that are not to be tried now do not hide the others.
	due, err := m.cfg.Store.PauseDue(ctx, now, limit+len(d.underWay)+len(d.failed))
	if err != nil {
		if ctx.Err() == nil {
			m.log.Error("idle sessions not listed", "error", err)
		}
		return
	}
	for _, rec := range due {
		if len(d.underWay) >= limit {
			break
		}
		if d.underWay[rec.ID] || now.Before(d.failed[rec.ID].at) {
			continue
		}
		d.underWay[rec.ID] = true
		m.work.Go(func() {
			_, err := m.transit(m.base, rec.ID, pausing(session.PausedByIdling))
			d.done <- dozed{rec.ID, err}
		})
	}
	d.forget(now)
}

// over notes how a pause went. One that failed is tried again after a while that
// grows.
func (d *dozes) over(done dozed, now time.Time) {
	delete(d.underWay, done.id)
	if done.err == nil || errors.Is(done.err, errAwake) {
		delete(d.failed, done.id)
		return
	}
	pause := min(max(2*d.failed[done.id].pause, firstDoze), maxDoze)
	d.failed[done.id] = doze{now.Add(pause), pause}
}

// forget drops what was not tried again, as the session is over.
func (d *dozes) forget(now time.Time) {
	for id, f := range d.failed {
		if now.Sub(f.at) > 2*maxDoze {
			delete(d.failed, id)
		}
	}
}
