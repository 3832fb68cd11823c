package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

// makingLife is after which time the server forgets a record that is still being
// made. Whoever makes it then notices, and begins anew.
const makingLife = 10 * time.Minute

// Create implements session.Store, in steps: a record that does not count, its
// places in the indexes, the claim on its idempotency key, and then the one that
// makes it count. Where the process dies in between, nothing has been created.
func (s *Store) Create(ctx context.Context, rec session.Session) (session.Session, error) {
	doing := fmt.Sprintf("create session %q", rec.ID)
	if !goodID(rec.ID) {
		return session.Session{}, fmt.Errorf("%s: %w", doing, errID)
	}
	rec, record, err := encode(rec)
	if err != nil {
		return session.Session{}, err
	}
	for {
		made, err := s.create(ctx, doing, rec, record)
		if !errors.Is(err, errOvertaken) {
			return made, err
		}
	}
}

// errOvertaken: the record that was being made is gone, or another one with its
// id is being made.
var errOvertaken = errors.New("overtaken")

func (s *Store) create(ctx context.Context, doing string, rec session.Session, record string) (session.Session, error) {
	exists := fmt.Errorf("%s: %w", doing, session.ErrExists)
	// The key counts before the id: a repeated request finds its session.
	stale := ""
	if rec.IdempotencyKey != "" {
		holder, first, err := s.holder(ctx, doing, rec.Owner, rec.IdempotencyKey)
		if err != nil {
			return session.Session{}, err
		}
		if first != nil {
			return *first, exists
		}
		stale = holder
	}
	born, key := newVersion(1), []string{s.keys.session(rec.ID)}
	life := strconv.FormatInt(makingLife.Milliseconds(), 10)
	begun, err := s.run(ctx, doing, s.scripts.begin, key, born, record, digits(rec.LastActivity), life)
	if err != nil {
		return session.Session{}, err
	}
	if begun == 0 {
		return s.taken(ctx, doing, rec, exists)
	}
	err = s.send(ctx, doing, func(b valkey.Builder) valkey.Commands {
		return append(s.enter(b, rec.ID, born, placesOf(rec)), s.enterLists(b, rec, born)...)
	})
	if err != nil {
		return session.Session{}, err
	}
	if rec.IdempotencyKey != "" {
		first, err := s.claim(ctx, doing, rec, born, stale)
		if err != nil {
			return session.Session{}, err
		}
		if first != nil {
			s.undo(ctx, rec, born)
			return *first, exists
		}
	}
	committed, err := s.run(ctx, doing, s.scripts.commit, key, born)
	if err != nil {
		return session.Session{}, err
	}
	if committed == 0 {
		s.undo(ctx, rec, born)
		return session.Session{}, errOvertaken
	}
	return rec, nil
}

// taken is the outcome when there is a session with the id: perhaps that of the
// same request, made since its key was looked for.
func (s *Store) taken(ctx context.Context, doing string, rec session.Session, exists error) (session.Session, error) {
	if rec.IdempotencyKey == "" {
		return session.Session{}, exists
	}
	_, first, err := s.holder(ctx, doing, rec.Owner, rec.IdempotencyKey)
	if err != nil || first == nil {
		return session.Session{}, errors.Join(err, exists)
	}
	return *first, exists
}

// undo takes back what create has done. What it cannot take back is told from
// what is.
func (s *Store) undo(ctx context.Context, rec session.Session, born string) {
	_, _ = s.run(ctx, "undo creation", s.scripts.abort, []string{s.keys.session(rec.ID)}, born)
	s.tidy(ctx, func(b valkey.Builder) valkey.Commands {
		return append(s.leave(b, rec.ID, born, placesOf(rec)), s.leaveLists(b, rec, born)...)
	})
}

// claim takes the key for a record, from the holder that was found to be stale.
// It returns the session that has the key, if that is another one.
func (s *Store) claim(ctx context.Context, doing string, rec session.Session, born, stale string) (*session.Session, error) {
	key, mine := s.keys.claim(rec.Owner, rec.IdempotencyKey), timed(rec.ID, born)
	for {
		var holder string
		err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
			holder, err = s.scripts.claim.Exec(ctx, c, []string{key}, []string{mine, stale}).ToString()
			return err
		})
		if err != nil || holder == mine {
			return nil, err
		}
		first, err := s.held(ctx, doing, holder, rec.Owner, rec.IdempotencyKey)
		if err != nil || first != nil {
			return first, err
		}
		stale = holder
	}
}

// holder finds who has a key: its claim, "" if there is none, and its session,
// nil if the claim is stale.
func (s *Store) holder(ctx context.Context, doing, owner, key string) (holder string, first *session.Session, err error) {
	err = s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		holder, err = c.Do(ctx, c.B().Get().Key(s.keys.claim(owner, key)).Build()).ToString()
		if valkey.IsValkeyNil(err) {
			holder, err = "", nil
		}
		return err
	})
	if err != nil || holder == "" {
		return "", nil, err
	}
	first, err = s.held(ctx, doing, holder, owner, key)
	return holder, first, err
}

// held is the session of a claim. One that its maker has not made count yet does
// from now on: it has its places, and the key. nil: the session is gone, or has
// given the key up, and neither can be undone.
func (s *Store) held(ctx context.Context, doing, holder, owner, key string) (*session.Session, error) {
	id, born := splitMember(holder)
	var r row
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) error {
		values, err := s.scripts.settle.Exec(ctx, c, []string{s.keys.session(id)}, []string{born}).ToArray()
		if valkey.IsValkeyNil(err) {
			r = row{}
			return nil
		}
		if err != nil {
			return err
		}
		r, err = readRow(id, values)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !r.there:
		return nil, nil
	case r.problem != nil:
		return nil, fmt.Errorf("%s: %w", doing, r.problem)
	case r.session.Owner != owner || r.session.IdempotencyKey != key:
		return nil, nil
	}
	return &r.session, nil
}

// Update implements session.Store. Where the times of a session change, the new
// version has its places in the indexes before it is written, and the old one
// after.
func (s *Store) Update(ctx context.Context, id string, change func(*session.Session) error) (session.Session, error) {
	doing := fmt.Sprintf("update session %q", id)
	for {
		r, err := s.found(ctx, doing, id)
		if err != nil {
			return session.Session{}, err
		}
		before, next := r.session, r.session
		if err := change(&next); err != nil {
			return session.Session{}, err
		}
		next.ID, next.LastActivity = id, before.LastActivity
		if err := before.MayBecome(next); err != nil {
			return session.Session{}, fmt.Errorf("%s: %w", doing, err)
		}
		next, record, err := encode(next)
		if err != nil {
			return session.Session{}, err
		}
		done, err := s.replace(ctx, doing, r, next, record)
		if err != nil {
			return session.Session{}, err
		}
		if done {
			return next, nil
		}
	}
}

// replace writes the next version of a record; false when somebody else was faster.
func (s *Store) replace(ctx context.Context, doing string, r row, next session.Session, record string) (bool, error) {
	id, version := next.ID, newVersion(number(r.version)+1)
	was, will := placesOf(r.session), placesOf(next)
	moves, flag := !slices.Equal(was, will), "0"
	if moves {
		flag = "1"
		if err := s.send(ctx, doing, func(b valkey.Builder) valkey.Commands { return s.enter(b, id, version, will) }); err != nil {
			return false, err
		}
	}
	outcome, err := s.run(ctx, doing, s.scripts.update, []string{s.keys.session(id)}, r.version, version, record, flag)
	if err != nil {
		return false, err
	}
	if moves {
		gone, from := version, will
		if outcome == 1 {
			gone, from = r.placed, was
		}
		s.tidy(ctx, func(b valkey.Builder) valkey.Commands { return s.leave(b, id, gone, from) })
	}
	if outcome < 0 {
		return false, fmt.Errorf("%s: %w", doing, session.ErrNotFound)
	}
	return outcome == 1, nil
}

// Touch implements session.Store. The indexes do not follow: they say when a
// session may be due at the earliest, and who reads them looks.
func (s *Store) Touch(ctx context.Context, id string, at time.Time) error {
	doing := fmt.Sprintf("touch session %q", id)
	if goodID(id) {
		there, err := s.run(ctx, doing, s.scripts.touch, []string{s.keys.session(id)}, digits(at))
		if err != nil || there == 1 {
			return err
		}
	} else if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, session.ErrNotFound)
}

// SaveClock implements session.Clocks.
func (s *Store) SaveClock(ctx context.Context, state session.ClockState) error {
	text := strconv.FormatInt(int64(state.Offset), 10) + " " + digits(state.Seen)
	return s.send(ctx, "save clock", func(b valkey.Builder) valkey.Commands {
		return valkey.Commands{b.Set().Key(s.keys.clock()).Value(text).Build()}
	})
}

// LoadClock implements session.Clocks.
func (s *Store) LoadClock(ctx context.Context) (session.ClockState, error) {
	const doing = "load clock"
	var text string
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		text, err = c.Do(ctx, c.B().Get().Key(s.keys.clock()).Build()).ToString()
		if valkey.IsValkeyNil(err) {
			text, err = "", nil
		}
		return err
	})
	if err != nil || text == "" {
		return session.ClockState{}, err
	}
	offset, seen, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(offset, 10, 64)
	at, seenErr := undigits(seen)
	if err := errors.Join(err, seenErr); err != nil {
		return session.ClockState{}, fmt.Errorf("%s: %w", doing, err)
	}
	return session.ClockState{Offset: time.Duration(n), Seen: at}, nil
}
