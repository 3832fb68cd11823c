package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

// takeSeatLua takes the seat ARGV[1], of which the owner may have ARGV[4], counted
// from ARGV[2] to ARGV[3], and all together ARGV[5] that do not rest; 0 means no
// bound. 1: it is taken; -1: the owner has too many; -2: there are too many.
const takeSeatLua = `
local taken, resting, seat = KEYS[1], KEYS[2], ARGV[1]
local mine, all = tonumber(ARGV[4]), tonumber(ARGV[5])
local has = redis.call('ZSCORE', taken, seat)
if has and redis.call('SISMEMBER', resting, seat) == 0 then return 1 end
if not has and mine > 0 and redis.call('ZLEXCOUNT', taken, ARGV[2], ARGV[3]) >= mine then return -1 end
if all > 0 and redis.call('ZCARD', taken) - redis.call('SCARD', resting) >= all then return -2 end
redis.call('SREM', resting, seat)
redis.call('ZADD', taken, 0, seat)
return 1`

const restSeatLua = `
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then redis.call('SADD', KEYS[2], ARGV[1]) end
return 1`

const leaveSeatLua = `
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
return 1`

// seated is the member of the set of seats: sorting them as text has those of one
// owner together.
func seated(seat session.Seat) (string, error) {
	if strings.ContainsRune(seat.Owner, 0) || strings.ContainsRune(seat.ID, 0) {
		return "", errors.New("owner and id of a seat must not hold a NUL character")
	}
	return seat.Owner + "\x00" + seat.ID, nil
}

// TakeSeat implements session.Seats.
func (s *Store) TakeSeat(ctx context.Context, seat session.Seat, limits session.SeatLimits) error {
	const doing = "take seat"
	outcome, err := s.seat(ctx, doing, s.scripts.takeSeat, seat,
		"["+seat.Owner+"\x00", "("+seat.Owner+"\x01", strconv.Itoa(limits.PerOwner), strconv.Itoa(limits.Awake))
	switch {
	case err != nil:
		return err
	case outcome == -1:
		return fmt.Errorf("%s: %w", doing, session.ErrOwnerSeated)
	case outcome == -2:
		return fmt.Errorf("%s: %w", doing, session.ErrNoSeat)
	}
	return nil
}

// RestSeat implements session.Seats.
func (s *Store) RestSeat(ctx context.Context, seat session.Seat) error {
	_, err := s.seat(ctx, "rest seat", s.scripts.restSeat, seat)
	return err
}

// LeaveSeat implements session.Seats.
func (s *Store) LeaveSeat(ctx context.Context, seat session.Seat) error {
	_, err := s.seat(ctx, "leave seat", s.scripts.leaveSeat, seat)
	return err
}

func (s *Store) seat(ctx context.Context, doing string, script *valkey.Lua, seat session.Seat, args ...string) (int64, error) {
	member, err := seated(seat)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	return s.run(ctx, doing, script, s.keys.seats(), append([]string{member}, args...)...)
}

// ListSeats implements session.Seats.
func (s *Store) ListSeats(ctx context.Context, after session.Seat, limit int) ([]session.Seat, error) {
	const doing = "list seats"
	from := "-"
	if after != (session.Seat{}) {
		member, err := seated(after)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		from = "(" + member
	}
	var members []string
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		members, err = c.Do(ctx, c.B().Zrangebylex().Key(s.keys.seats()[0]).Min(from).Max("+").Limit(0, int64(limit)).Build()).AsStrSlice()
		return err
	})
	if err != nil {
		return nil, err
	}
	seats := make([]session.Seat, len(members))
	for i, member := range members {
		seats[i].Owner, seats[i].ID, _ = strings.Cut(member, "\x00")
	}
	return seats, nil
}
