package redis

import (
	"context"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

// Living implements session.Living: those that are to end some time are those that have
// not. Where a session changes, its place there does, too.
func (s *Store) Living(ctx context.Context) ([]session.Session, error) {
	const doing = "list living sessions"
	living := []session.Session{}
	seen := map[string]bool{}
	for cursor := uint64(0); ; {
		var some valkey.ScanEntry
		err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
			some, err = c.Do(ctx, c.B().Zscan().Key(s.keys.index(indexDue)).Cursor(cursor).Count(fetchBatch).Build()).AsScanEntry()
			return err
		})
		if err != nil {
			return nil, err
		}
		var ids []string
		for i := 0; i < len(some.Elements); i += 2 { // each with its score
			if id, _ := splitMember(some.Elements[i]); !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		rows, err := s.rows(ctx, doing, ids)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if r.counts() && r.problem == nil && !r.session.Ended() {
				living = append(living, r.session)
			}
		}
		if cursor = some.Cursor; cursor == 0 {
			return living, nil
		}
	}
}
