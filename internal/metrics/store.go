package metrics

import (
	"cmp"
	"context"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// Store is what both planes keep sessions and tokens in.
type Store interface {
	session.Store
	session.Sleepers
	session.Checkpoints
	session.Clocks
	session.Once
	session.Pinger
	auth.TokenStore
	Close() error
}

// Store measures what s is asked for: the operations that requests wait for, or that
// are done over and over again.
func (m *Metrics) Store(s Store) Store { return &store{s, m} }

// SharedStore is a Store that several processes share.
type SharedStore interface {
	Store
	session.Rates
	session.Seats
	session.Living
}

// SharedStore is Store for one that is shared.
func (m *Metrics) SharedStore(s SharedStore) SharedStore {
	return &sharedStore{&store{s, m}, s, s, s}
}

type sharedStore struct {
	*store
	rates session.Rates
	session.Seats
	living session.Living
}

type store struct {
	Store
	m *Metrics
}

// measure is the step of one operation.
func measure[T any](ctx context.Context, s *store, operation string, do func(context.Context) (T, error)) (T, error) {
	ctx, over := begin(ctx, "store "+operation, trace.Client)
	out, err := do(ctx)
	how, took := over(outcome(err, storeWords()))
	s.m.store.WithLabelValues(operation, how).Observe(took.Seconds())
	return out, err
}

type nothing struct{}

// Create implements session.Store.
func (s *store) Create(ctx context.Context, rec session.Session) (session.Session, error) {
	return measure(ctx, s, "create", func(ctx context.Context) (session.Session, error) { return s.Store.Create(ctx, rec) })
}

// Get implements session.Store.
func (s *store) Get(ctx context.Context, id string) (session.Session, error) {
	return measure(ctx, s, "get", func(ctx context.Context) (session.Session, error) { return s.Store.Get(ctx, id) })
}

// Update implements session.Store. That change has refused is no failure of the store.
func (s *store) Update(ctx context.Context, id string, change func(*session.Session) error) (session.Session, error) {
	var refused error // what Update itself returned then
	rec, err := measure(ctx, s, "update", func(ctx context.Context) (session.Session, error) {
		refuses := false
		rec, err := s.Store.Update(ctx, id, func(rec *session.Session) error {
			err := change(rec)
			refuses = err != nil
			return err
		})
		if refuses {
			refused, err = err, nil
		}
		return rec, err
	})
	return rec, cmp.Or(err, refused)
}

// Touch implements session.Store.
func (s *store) Touch(ctx context.Context, id string, at time.Time) error {
	_, err := measure(ctx, s, "touch", func(ctx context.Context) (nothing, error) { return nothing{}, s.Store.Touch(ctx, id, at) })
	return err
}

// page is what List returns.
type page struct {
	list []session.Session
	next string
}

// List implements session.Store.
func (s *store) List(ctx context.Context, q session.Query) ([]session.Session, string, error) {
	p, err := measure(ctx, s, "list", func(ctx context.Context) (p page, err error) {
		p.list, p.next, err = s.Store.List(ctx, q)
		return p, err
	})
	return p.list, p.next, err
}

// Due implements session.Store.
func (s *store) Due(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	return measure(ctx, s, "due", func(ctx context.Context) ([]session.Session, error) { return s.Store.Due(ctx, now, limit) })
}

// PauseDue implements session.Sleepers.
func (s *store) PauseDue(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	return measure(ctx, s, "pause-due", func(ctx context.Context) ([]session.Session, error) { return s.Store.PauseDue(ctx, now, limit) })
}

// Purge implements session.Store.
func (s *store) Purge(ctx context.Context, endedBefore time.Time) (int, error) {
	return measure(ctx, s, "purge", func(ctx context.Context) (int, error) { return s.Store.Purge(ctx, endedBefore) })
}

// Ping implements session.Pinger.
func (s *store) Ping(ctx context.Context) error {
	_, err := measure(ctx, s, "ping", func(ctx context.Context) (nothing, error) { return nothing{}, s.Store.Ping(ctx) })
	return err
}

// CreateCheckpoint implements session.Checkpoints.
func (s *store) CreateCheckpoint(ctx context.Context, c session.Checkpoint) error {
	_, err := measure(ctx, s, "create-checkpoint", func(ctx context.Context) (nothing, error) {
		return nothing{}, s.Store.CreateCheckpoint(ctx, c)
	})
	return err
}

// GetCheckpoint implements session.Checkpoints.
func (s *store) GetCheckpoint(ctx context.Context, owner, name string) (session.Checkpoint, error) {
	return measure(ctx, s, "get-checkpoint", func(ctx context.Context) (session.Checkpoint, error) {
		return s.Store.GetCheckpoint(ctx, owner, name)
	})
}

// FindToken implements auth.TokenStore.
func (s *store) FindToken(ctx context.Context, hash auth.TokenHash) (auth.TokenRecord, error) {
	return measure(ctx, s, "find-token", func(ctx context.Context) (auth.TokenRecord, error) { return s.Store.FindToken(ctx, hash) })
}

// UseOnce implements session.Once.
func (s *store) UseOnce(ctx context.Context, use session.Use) error {
	_, err := measure(ctx, s, "use-once", func(ctx context.Context) (nothing, error) { return nothing{}, s.Store.UseOnce(ctx, use) })
	return err
}

// Take implements session.Rates.
func (s *sharedStore) Take(ctx context.Context, bucket string, n int, rate session.Rate, now time.Time) (time.Duration, error) {
	return measure(ctx, s.store, "take-rate", func(ctx context.Context) (time.Duration, error) {
		return s.rates.Take(ctx, bucket, n, rate, now)
	})
}

// TakeSeat implements session.Seats.
func (s *sharedStore) TakeSeat(ctx context.Context, seat session.Seat, limits session.SeatLimits) error {
	_, err := measure(ctx, s.store, "take-seat", func(ctx context.Context) (nothing, error) {
		return nothing{}, s.Seats.TakeSeat(ctx, seat, limits)
	})
	return err
}

// Living implements session.Living.
func (s *sharedStore) Living(ctx context.Context) ([]session.Session, error) {
	return measure(ctx, s.store, "living", s.living.Living)
}
