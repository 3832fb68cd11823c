package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// useOnceLua notes the use ARGV[1] until ARGV[2], at ARGV[3], of which there may be
// ARGV[4]. ARGV[5] is who does, so that it can be sent again. 1: it is noted; 0: it
// was used before; -1: there are too many.
const useOnceLua = `
local ends, by = KEYS[1], KEYS[2]
local who = redis.call('HGET', by, ARGV[1])
local noted = redis.call('ZSCORE', ends, ARGV[1])
if noted and tonumber(noted) > tonumber(ARGV[3]) then
  return who == ARGV[5] and 1 or 0
end
for _, over in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', ARGV[3], 'LIMIT', 0, 500)) do
  redis.call('ZREM', ends, over)
  redis.call('HDEL', by, over)
end
if redis.call('ZCARD', ends) >= tonumber(ARGV[4]) then return -1 end
redis.call('ZADD', ends, ARGV[2], ARGV[1])
redis.call('HSET', by, ARGV[1], ARGV[5])
local life = math.max(tonumber(ARGV[6]), redis.call('PTTL', ends))
redis.call('PEXPIRE', ends, life)
redis.call('PEXPIRE', by, life)
return 1`

// UseOnce implements session.Once.
func (s *Store) UseOnce(ctx context.Context, use session.Use) error {
	const doing = "note use"
	until, by := s.keys.uses(use.Owner)
	// Forgotten by the server's own clock only well after the end.
	life := max(2*use.Until.Sub(use.Now), time.Minute)
	outcome, err := s.run(ctx, doing, s.scripts.useOnce, []string{until, by},
		use.ID, strconv.FormatInt(score(use.Until), 10), strconv.FormatInt(score(use.Now), 10), strconv.Itoa(use.Most),
		rand.Text(), strconv.FormatInt(life.Milliseconds(), 10))
	switch {
	case err != nil:
		return err
	case outcome == 0:
		return fmt.Errorf("%s: %w", doing, session.ErrUsed)
	case outcome < 0:
		return fmt.Errorf("%s: %w", doing, session.ErrTooManyUses)
	}
	return nil
}

// takeLua takes ARGV[1] permits at ARGV[4], in microseconds, of a bucket that holds
// ARGV[3] and gets ARGV[2] a second. It returns the microseconds to wait. Where one
// server's clock is behind another's, the bucket does not fill meanwhile; a time
// that is too far ahead to be that is of a clock that was set.
const takeLua = `
local n, rate, burst, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local full = burst / rate * 1e6
local was = redis.call('HMGET', KEYS[1], 'has', 'at')
local has, at = tonumber(was[1] or burst), tonumber(was[2] or now)
if at - now > full then at = now end
has = math.min(burst, has + math.max(0, now - at) / 1e6 * rate)
local wait = 0
if has >= n then has = has - n else wait = math.ceil((n - has) / rate * 1e6) end
redis.call('HSET', KEYS[1], 'has', string.format('%.6f', has), 'at', string.format('%.0f', math.max(at, now)))
redis.call('PEXPIRE', KEYS[1], math.ceil(full / 1000) + 1000)
return wait`

// Take implements session.Rates.
func (s *Store) Take(ctx context.Context, bucket string, n int, rate session.Rate, now time.Time) (time.Duration, error) {
	if n > rate.Burst || rate.PerSecond <= 0 {
		return 0, fmt.Errorf("take permits: there are never %d at a rate of %+v", n, rate)
	}
	wait, err := s.run(ctx, "take permits", s.scripts.take, []string{s.keys.rate(bucket)},
		strconv.Itoa(n), strconv.Itoa(rate.PerSecond), strconv.Itoa(rate.Burst), strconv.FormatInt(score(now), 10))
	return time.Duration(wait) * time.Microsecond, err
}
