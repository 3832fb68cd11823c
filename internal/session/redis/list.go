package redis

import (
	"context"
	"fmt"
	"slices"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// Get implements session.Store.
func (s *Store) Get(ctx context.Context, id string) (session.Session, error) {
	r, err := s.found(ctx, fmt.Sprintf("get session %q", id), id)
	return r.session, err
}

// found is the record of a session that there is, and can be read.
func (s *Store) found(ctx context.Context, doing, id string) (row, error) {
	r, err := s.row(ctx, doing, id)
	switch {
	case err != nil:
		return row{}, err
	case ctx.Err() != nil:
		return row{}, fmt.Errorf("%s: %w", doing, ctx.Err())
	case !r.counts():
		return row{}, fmt.Errorf("%s: %w", doing, session.ErrNotFound)
	case r.problem != nil:
		return row{}, fmt.Errorf("%s: %w", doing, r.problem)
	}
	return r, nil
}

// List implements session.Store. Records that cannot be read are left out.
func (s *Store) List(ctx context.Context, q session.Query) ([]session.Session, string, error) {
	const doing = "list sessions"
	limit := q.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	from := ""
	var after *session.Place
	if q.Cursor != "" {
		place, err := session.ParseCursor(q.Cursor)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", doing, err)
		}
		after, from = &place, listedBefore(place)+"\xff"
	}
	if q.Owner != "" && q.IdempotencyKey != "" {
		page, err := s.listByKey(ctx, doing, q, after)
		return page, "", err
	}
	index := s.keys.index(indexAll)
	if q.Owner != "" {
		index = s.keys.ofOwner(q.Owner)
	}
	page := []session.Session{}
	for {
		// One more than the page holds tells whether there is a next one.
		n := min(limit+1, fetchBatch)
		members, rows, err := s.listedRows(ctx, doing, index, from, n)
		if err != nil {
			return nil, "", err
		}
		for _, r := range rows {
			if !r.counts() || r.problem != nil || !matches(r.session, q) {
				continue
			}
			if len(page) == limit {
				return page, session.PlaceOf(page[limit-1]).Cursor(), nil
			}
			page = append(page, r.session)
		}
		if len(members) < n {
			return page, "", nil
		}
		from = members[n-1]
	}
}

// listedRows are the next members of an index by place, after one of them, and
// the records that they are about. Those about nothing are taken out.
func (s *Store) listedRows(ctx context.Context, doing, index, after string, n int) ([]string, []row, error) {
	start := "-"
	if after != "" {
		start = "(" + after
	}
	var members []string
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		members, err = c.Do(ctx, c.B().Zrangebylex().Key(index).Min(start).Max("+").Limit(0, int64(n)).Build()).AsStrSlice()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	ids, births := make([]string, len(members)), make([]string, len(members))
	for i, m := range members {
		ids[i], births[i] = unlisted(m)
	}
	rows, err := s.rows(ctx, doing, ids)
	if err != nil {
		return nil, nil, err
	}
	var nothing []string
	kept := rows[:0]
	for i, r := range rows {
		if r.born != births[i] {
			nothing = append(nothing, members[i])
			continue
		}
		kept = append(kept, r)
	}
	if len(nothing) > 0 {
		s.tidy(ctx, func(b valkey.Builder) valkey.Commands {
			return valkey.Commands{b.Zrem().Key(index).Member(nothing...).Build()}
		})
	}
	return members, kept, nil
}

// listByKey is List for the one session that an owner has with a key.
func (s *Store) listByKey(ctx context.Context, doing string, q session.Query, after *session.Place) ([]session.Session, error) {
	_, rec, err := s.holder(ctx, doing, q.Owner, q.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	if rec == nil || !matches(*rec, q) {
		return []session.Session{}, nil
	}
	if after != nil && listed(session.PlaceOf(*rec), "") <= listedBefore(*after) {
		return []session.Session{}, nil
	}
	return []session.Session{*rec}, nil
}

func matches(s session.Session, q session.Query) bool {
	return (q.Owner == "" || q.Owner == s.Owner) && (q.Kind == "" || q.Kind == s.Kind) &&
		(q.IdempotencyKey == "" || q.IdempotencyKey == s.IdempotencyKey) &&
		(len(q.States) == 0 || slices.Contains(q.States, s.State))
}
