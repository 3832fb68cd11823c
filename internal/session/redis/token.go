package redis

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

// tokenBatch is how many tokens are read at once.
const tokenBatch = 500

// Tokens are all kept by one server of a cluster: their names are given once for
// all, and so are their hashes.
type tokenKeys struct{ records, used, revoked, hashes, names string }

func (k tokenKeys) list() []string { return []string{k.records, k.used, k.revoked, k.hashes, k.names} }

// token is the part of a record that never changes. Times are as in digits.
type token struct {
	Hash      string `json:"hash"`
	Scopes    string `json:"scopes"`
	CreatedBy string `json:"createdBy"`
	CreatedAt string `json:"createdAt"`
	ExpiresAt string `json:"expiresAt"`
}

// createTokenLua adds the token ARGV[1] with the hash ARGV[2], if both are free.
// ARGV[6] is who does.
const createTokenLua = `
local records, used, revoked, hashes, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if redis.call('HEXISTS', records, ARGV[1]) == 1 or redis.call('HEXISTS', hashes, ARGV[2]) == 1 then
  return redis.call('HGET', hashes, ARGV[2]) == ARGV[6] .. ' ' .. ARGV[1] and 1 or 0
end
redis.call('HSET', records, ARGV[1], ARGV[3])
redis.call('HSET', used, ARGV[1], ARGV[4])
redis.call('HSET', revoked, ARGV[1], ARGV[5])
redis.call('HSET', hashes, ARGV[2], ARGV[6] .. ' ' .. ARGV[1])
redis.call('ZADD', names, 0, ARGV[1])
return 1`

const findTokenLua = `
local holder = redis.call('HGET', KEYS[4], ARGV[1])
if not holder then return false end
local name = string.sub(holder, string.find(holder, ' ', 1, true) + 1)
return {name, redis.call('HGET', KEYS[1], name), redis.call('HGET', KEYS[2], name), redis.call('HGET', KEYS[3], name)}`

const revokeTokenLua = `
local name = ARGV[1]
local record = redis.call('HGET', KEYS[1], name)
if not record then return false end
if not string.find(redis.call('HGET', KEYS[3], name), '[1-9]') then redis.call('HSET', KEYS[3], name, ARGV[2]) end
return {name, record, redis.call('HGET', KEYS[2], name), redis.call('HGET', KEYS[3], name)}`

const useTokenLua = `
local at = redis.call('HGET', KEYS[2], ARGV[1])
if at and at < ARGV[2] then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return 1`

// CreateToken implements auth.TokenStore.
func (s *Store) CreateToken(ctx context.Context, r auth.TokenRecord) error {
	doing := fmt.Sprintf("create token %q", r.Name)
	hash := hex.EncodeToString(r.Hash[:])
	record, err := json.Marshal(token{hash, r.Scopes.String(), r.CreatedBy, digits(r.CreatedAt), digits(r.ExpiresAt)})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	made, err := s.run(ctx, doing, s.scripts.createToken, s.keys.tokens().list(),
		r.Name, hash, string(record), digits(r.LastUsedAt), digits(r.RevokedAt), newVersion(1))
	if err == nil && made == 0 {
		err = fmt.Errorf("%s: %w", doing, auth.ErrTokenExists)
	}
	return err
}

// FindToken implements auth.TokenStore.
func (s *Store) FindToken(ctx context.Context, hash auth.TokenHash) (auth.TokenRecord, error) {
	return s.oneToken(ctx, "find token", s.scripts.findToken, hex.EncodeToString(hash[:]))
}

// RevokeToken implements auth.TokenStore.
func (s *Store) RevokeToken(ctx context.Context, name string, at time.Time) (auth.TokenRecord, error) {
	return s.oneToken(ctx, fmt.Sprintf("revoke token %q", name), s.scripts.revokeToken, name, digits(at))
}

func (s *Store) oneToken(ctx context.Context, doing string, script *valkey.Lua, args ...string) (auth.TokenRecord, error) {
	var parts []string
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		parts, err = script.Exec(ctx, c, s.keys.tokens().list(), args).AsStrSlice()
		if valkey.IsValkeyNil(err) {
			parts, err = nil, nil
		}
		return err
	})
	switch {
	case err != nil:
		return auth.TokenRecord{}, err
	case parts == nil:
		return auth.TokenRecord{}, fmt.Errorf("%s: %w", doing, auth.ErrNoToken)
	case len(parts) != 4:
		return auth.TokenRecord{}, fmt.Errorf("%s: %d of 4 parts of a record came back", doing, len(parts))
	}
	r, err := readToken(parts[0], parts[1], parts[2], parts[3])
	if err != nil {
		return auth.TokenRecord{}, fmt.Errorf("%s: %w", doing, err)
	}
	return r, nil
}

// readToken decodes a record; one that cannot be read lets nobody in.
func readToken(name, record, usedAt, revokedAt string) (auth.TokenRecord, error) {
	fail := func(err error) (auth.TokenRecord, error) {
		return auth.TokenRecord{}, fmt.Errorf("read record of token %q: %w", name, err)
	}
	var t token
	if err := json.Unmarshal([]byte(record), &t); err != nil {
		return fail(err)
	}
	r := auth.TokenRecord{Name: name, CreatedBy: t.CreatedBy}
	var names []api.Scope
	for scope := range strings.SplitSeq(t.Scopes, ",") {
		names = append(names, api.Scope(scope))
	}
	var err error
	if r.Scopes, err = auth.ParseScopes(names); err != nil {
		return fail(err)
	}
	hash, err := hex.DecodeString(t.Hash)
	if err != nil || copy(r.Hash[:], hash) != len(r.Hash) {
		return fail(errors.New("its hash is none"))
	}
	for _, at := range []struct {
		out  *time.Time
		text string
	}{{&r.CreatedAt, t.CreatedAt}, {&r.ExpiresAt, t.ExpiresAt}, {&r.LastUsedAt, usedAt}, {&r.RevokedAt, revokedAt}} {
		if *at.out, err = optionalTime(at.text); err != nil {
			return fail(err)
		}
	}
	return r, nil
}

// ListTokens implements auth.TokenStore.
func (s *Store) ListTokens(ctx context.Context, q auth.TokenQuery) ([]auth.TokenRecord, error) {
	var all []auth.TokenRecord
	for after := q.After; ; {
		some, last, err := s.tokensAfter(ctx, after)
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			if !q.ValidAt.IsZero() && !r.Valid(q.ValidAt) {
				continue
			}
			if all = append(all, r); len(all) == q.Limit {
				return all, nil
			}
		}
		if last == "" {
			return all, nil
		}
		after = last
	}
}

// tokensAfter are the next tokens by name, and the name of the last of them; ""
// when there are no more.
func (s *Store) tokensAfter(ctx context.Context, after string) (some []auth.TokenRecord, last string, err error) {
	const doing = "list tokens"
	keys, from := s.keys.tokens(), "-"
	if after != "" {
		from = "(" + after
	}
	var names []string
	var parts [3][]string
	err = s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		names, err = c.Do(ctx, c.B().Zrangebylex().Key(keys.names).Min(from).Max("+").Limit(0, tokenBatch).Build()).AsStrSlice()
		if err != nil || len(names) == 0 {
			return err
		}
		results := c.DoMulti(ctx, c.B().Hmget().Key(keys.records).Field(names...).Build(),
			c.B().Hmget().Key(keys.used).Field(names...).Build(), c.B().Hmget().Key(keys.revoked).Field(names...).Build())
		for i := range parts {
			if parts[i], err = results[i].AsStrSlice(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	for i, name := range names {
		r, err := readToken(name, parts[0][i], parts[1][i], parts[2][i])
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", doing, err)
		}
		some = append(some, r)
	}
	if len(names) == tokenBatch {
		last = names[len(names)-1]
	}
	return some, last, nil
}

// CountTokens implements auth.TokenStore.
func (s *Store) CountTokens(ctx context.Context) (n int, err error) {
	err = s.exchange(ctx, "count tokens", func(ctx context.Context, c valkey.Client) error {
		count, err := c.Do(ctx, c.B().Hlen().Key(s.keys.tokens().records).Build()).ToInt64()
		n = int(count)
		return err
	})
	return n, err
}

// UseToken implements auth.TokenStore.
func (s *Store) UseToken(ctx context.Context, name string, at time.Time) error {
	_, err := s.run(ctx, fmt.Sprintf("use token %q", name), s.scripts.useToken, s.keys.tokens().list(), name, digits(at))
	return err
}
