package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"
	"golang.org/x/sync/errgroup"

	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	// spare is how many members more than asked for are read at once, for those
	// that turn out to be about nothing.
	spare = 16
	// purgeBatch and purgeWidth bound what one round of Purge looks at, and how many
	// records are being removed at the same time.
	purgeBatch = 500
	purgeWidth = 16
)

// timedMember is a member of an index by time, and what it is about.
type timedMember struct {
	member, id, version string
	score               int64
	row                 row
	add                 bool // it is to be there
}

// Due implements session.Store. A record that cannot be read is reported once,
// by the call that comes upon it, and then set aside until Purge removes it.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	var unreadable []error
	aside := func(ctx context.Context, bad []timedMember) error {
		for _, m := range bad {
			unreadable = append(unreadable, m.row.problem)
		}
		return s.setAside(ctx, bad, now)
	}
	due, err := s.overdue(ctx, "find due sessions", indexDue, now, limit, aside, func(rec session.Session) (time.Time, bool) {
		return rec.Deadline(), !rec.Ended()
	})
	return due, errors.Join(append(unreadable, err)...)
}

// PauseDue implements session.Sleepers.
func (s *Store) PauseDue(ctx context.Context, now time.Time, limit int) ([]session.Session, error) {
	leave := func(context.Context, []timedMember) error { return nil } // Due reports them
	return s.overdue(ctx, "find idle sessions", indexPause, now, limit, leave, func(rec session.Session) (time.Time, bool) {
		at := rec.LastActivity.Add(rec.PauseAfter)
		return at, rec.PauseDue(at)
	})
}

// overdue are those sessions of an index whose time has come, the most overdue
// first. The index says when that may be at the earliest; when tells when it is,
// and whether the session is to be in the index at all. Members that say too
// early a time are moved on, and those about nothing removed, until what is left
// is in order. unreadable is told the records that cannot be read, and takes them
// out of the index or leaves them.
func (s *Store) overdue(
	ctx context.Context, doing, index string, now time.Time, limit int,
	unreadable func(context.Context, []timedMember) error, when func(session.Session) (time.Time, bool),
) ([]session.Session, error) {
	for skipped := 0; ; {
		want := limit + skipped + spare
		members, err := s.timedMembers(ctx, doing, index, score(now), want)
		if err != nil {
			return nil, err
		}
		due, bad, wrong := judge(members, now, when)
		if err := unreadable(ctx, bad); err != nil {
			return nil, err
		}
		if err := s.correct(ctx, doing, index, wrong); err != nil {
			return nil, err
		}
		if len(members) < want || len(due) >= limit && len(wrong) == 0 {
			slices.SortStableFunc(due, func(a, b session.Session) int {
				first, _ := when(a)
				second, _ := when(b)
				return first.Compare(second)
			})
			return due[:min(limit, len(due))], nil
		}
		// Those in the way now are as many more as have to be asked for.
		skipped = len(members) - len(due)
	}
}

// judge tells members of an index by time apart: the sessions that are due,
// unreadable records, and members that are to be corrected. Whatever version
// a member is about, it leads to the record, and that decides.
func judge(members []timedMember, now time.Time, when func(session.Session) (time.Time, bool)) (
	due []session.Session, bad, wrong []timedMember,
) {
	seen := map[string]bool{}
	for _, m := range members {
		standing := m.row.standing(m.version)
		if !m.row.counts() || m.row.problem != nil {
			switch standing {
			case standsNever:
				wrong = append(wrong, m.gone())
			case standsNow:
				bad = append(bad, m)
			}
			continue
		}
		at, belongs := when(m.row.session)
		if belongs && !at.After(now) && !seen[m.id] {
			seen[m.id] = true
			due = append(due, m.row.session)
		}
		switch {
		case standing == standsNever && belongs:
			// The present version has a place of its own, unless the server has lost it.
			wrong = append(wrong, m.gone(), m.mended(score(at)))
		case standing == standsNever, standing == standsNow && !belongs:
			wrong = append(wrong, m.gone())
		case standing == standsNow && score(at) > m.score:
			m.score = score(at)
			wrong = append(wrong, m)
		}
	}
	return due, bad, wrong
}

// gone is m, to be removed.
func (m timedMember) gone() timedMember {
	m.score = -1
	return m
}

// mended is the member that the present version of the record of m has.
func (m timedMember) mended(score int64) timedMember {
	m.member, m.version, m.score, m.add = timed(m.id, m.row.placed), m.row.placed, score, true
	return m
}

// correct moves members of an index on, removes those with the score -1, and adds
// those that are missing. A member belongs to one version of a record, of which
// the time only ever moves on, so nobody's later knowledge is undone.
func (s *Store) correct(ctx context.Context, doing, index string, wrong []timedMember) error {
	if len(wrong) == 0 {
		return nil
	}
	return s.send(ctx, doing, func(b valkey.Builder) valkey.Commands {
		commands := make(valkey.Commands, len(wrong))
		key := s.keys.index(index)
		for i, m := range wrong {
			switch {
			case m.score < 0:
				commands[i] = b.Zrem().Key(key).Member(m.member).Build()
			case m.add:
				commands[i] = b.Zadd().Key(key).Gt().ScoreMember().ScoreMember(float64(m.score), m.member).Build()
			default:
				commands[i] = b.Zadd().Key(key).Xx().Gt().ScoreMember().ScoreMember(float64(m.score), m.member).Build()
			}
		}
		return commands
	})
}

// setAside moves unreadable records to those that have ended, as of now.
func (s *Store) setAside(ctx context.Context, bad []timedMember, now time.Time) error {
	if len(bad) == 0 {
		return nil
	}
	return s.send(ctx, "set unreadable sessions aside", func(b valkey.Builder) valkey.Commands {
		var commands valkey.Commands
		for _, m := range bad {
			commands = append(commands,
				b.Zadd().Key(s.keys.index(indexEnded)).ScoreMember().ScoreMember(float64(score(now)), m.member).Build(),
				b.Zrem().Key(s.keys.index(indexDue)).Member(m.member).Build())
		}
		return commands
	})
}

// timedMembers are the first members of an index by time, up to a score, with
// the records that they are about.
func (s *Store) timedMembers(ctx context.Context, doing, index string, to int64, limit int) ([]timedMember, error) {
	var members []timedMember
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) error {
		scores, err := c.Do(ctx, c.B().Zrangebyscore().Key(s.keys.index(index)).Min("-inf").Max(strconv.FormatInt(to, 10)).
			Withscores().Limit(0, int64(limit)).Build()).AsZScores()
		members = members[:0]
		for _, z := range scores {
			id, version := splitMember(z.Member)
			members = append(members, timedMember{member: z.Member, id: id, version: version, score: int64(z.Score)})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = m.id
	}
	rows, err := s.rows(ctx, doing, ids)
	if err != nil {
		return nil, err
	}
	for i := range members {
		members[i].row = rows[i]
	}
	return members, nil
}

// Purge implements session.Store. Records that Due has set aside are removed too,
// once that is as long ago.
func (s *Store) Purge(ctx context.Context, endedBefore time.Time) (int, error) {
	const doing = "purge sessions"
	total := 0
	for skipped := 0; ; {
		want := purgeBatch + skipped
		members, err := s.timedMembers(ctx, doing, indexEnded, score(endedBefore), want)
		if err != nil {
			return total, err
		}
		over, wrong := judgeEnded(members, endedBefore)
		if err := s.correct(ctx, doing, indexEnded, wrong); err != nil {
			return total, err
		}
		removed, err := s.remove(ctx, doing, over)
		total += removed
		if err != nil {
			return total, err
		}
		if len(members) < want {
			return total, nil
		}
		skipped = len(members) - len(over)
	}
}

// judgeEnded is judge for sessions that have ended: over are the records that are
// to be removed.
func judgeEnded(members []timedMember, before time.Time) (over, wrong []timedMember) {
	ended, bad, wrong := judge(members, before, func(rec session.Session) (time.Time, bool) { return rec.EndedAt, rec.Ended() })
	old := map[string]bool{}
	for _, rec := range ended {
		old[rec.ID] = rec.EndedAt.Before(before)
	}
	for _, m := range members {
		if m.row.counts() && m.row.problem == nil && old[m.id] {
			over = append(over, m)
			old[m.id] = false // once
		}
	}
	for _, m := range bad {
		if m.score < score(before) {
			over = append(over, m)
		}
	}
	return over, wrong
}

// remove removes records, and then what leads to them. Where it breaks off in
// between, the rest is found to be about nothing.
func (s *Store) remove(ctx context.Context, doing string, over []timedMember) (int, error) {
	removed := make([]bool, len(over))
	group, bounded := errgroup.WithContext(ctx)
	group.SetLimit(purgeWidth)
	for i, m := range over {
		group.Go(func() error {
			n, err := s.run(bounded, doing, s.scripts.remove, []string{s.keys.session(m.id)}, m.row.version)
			removed[i] = n == 1
			return err
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	n := 0
	var gone []timedMember
	for i, m := range over {
		if removed[i] {
			n++
			gone = append(gone, m)
		}
	}
	if n == 0 {
		return 0, err
	}
	s.tidy(ctx, func(b valkey.Builder) valkey.Commands {
		var commands valkey.Commands
		for _, m := range gone {
			commands = append(commands, b.Zrem().Key(s.keys.index(indexEnded)).Member(m.member, timed(m.id, m.row.placed)).Build())
			if m.row.problem == nil {
				commands = append(commands, s.leaveLists(b, m.row.session, m.row.born)...)
			}
		}
		return commands
	})
	for _, m := range gone {
		if rec := m.row.session; rec.IdempotencyKey != "" {
			_, _ = s.run(ctx, "give up key", s.scripts.release, []string{s.keys.claim(rec.Owner, rec.IdempotencyKey)}, timed(rec.ID, m.row.born))
		}
	}
	return n, err
}
