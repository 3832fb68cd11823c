package authtest

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// TokenStore is an [auth.TokenStore] in memory. Its zero value is empty.
type TokenStore struct {
	// Fail, when set, is what every method fails with. It is set before use.
	Fail error

	mu   sync.Mutex
	list []auth.TokenRecord
}

func (s *TokenStore) enter(ctx context.Context) (leave func(), err error) {
	if err := cmp.Or(s.Fail, ctx.Err()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	return s.mu.Unlock, nil
}

// CreateToken implements auth.TokenStore.
func (s *TokenStore) CreateToken(ctx context.Context, r auth.TokenRecord) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if slices.ContainsFunc(s.list, func(old auth.TokenRecord) bool { return old.Name == r.Name || old.Hash == r.Hash }) {
		return auth.ErrTokenExists
	}
	for _, t := range []*time.Time{&r.CreatedAt, &r.ExpiresAt, &r.LastUsedAt, &r.RevokedAt} {
		*t = t.Round(0).UTC()
	}
	s.list = append(s.list, r)
	slices.SortFunc(s.list, func(a, b auth.TokenRecord) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// FindToken implements auth.TokenStore.
func (s *TokenStore) FindToken(ctx context.Context, hash auth.TokenHash) (auth.TokenRecord, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return auth.TokenRecord{}, err
	}
	defer leave()
	for _, r := range s.list {
		if r.Hash == hash {
			return r, nil
		}
	}
	return auth.TokenRecord{}, auth.ErrNoToken
}

// ListTokens implements auth.TokenStore.
func (s *TokenStore) ListTokens(ctx context.Context, q auth.TokenQuery) ([]auth.TokenRecord, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var out []auth.TokenRecord
	for _, r := range s.list {
		if r.Name > q.After && (q.ValidAt.IsZero() || r.Valid(q.ValidAt)) && (q.Limit <= 0 || len(out) < q.Limit) {
			out = append(out, r)
		}
	}
	return out, nil
}

// CountTokens implements auth.TokenStore.
func (s *TokenStore) CountTokens(ctx context.Context) (int, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	return len(s.list), nil
}

// RevokeToken implements auth.TokenStore.
func (s *TokenStore) RevokeToken(ctx context.Context, name string, at time.Time) (auth.TokenRecord, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return auth.TokenRecord{}, err
	}
	defer leave()
	for i := range s.list {
		if r := &s.list[i]; r.Name == name {
			if r.RevokedAt.IsZero() {
				r.RevokedAt = at
			}
			return *r, nil
		}
	}
	return auth.TokenRecord{}, auth.ErrNoToken
}

// UseToken implements auth.TokenStore.
func (s *TokenStore) UseToken(ctx context.Context, name string, at time.Time) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	for i := range s.list {
		if r := &s.list[i]; r.Name == name && at.After(r.LastUsedAt) {
			r.LastUsedAt = at
		}
	}
	return nil
}
