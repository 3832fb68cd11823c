package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// ErrTooManyTokens says that no more tokens can be made: none is ever forgotten.
var ErrTooManyTokens = errors.New("too many tokens")

const (
	// issuedPrefix begins every token but the local one, so that people, and
	// programs that look for leaked secrets, know one when they see it.
	issuedPrefix = "act_"
	secretBytes  = 32
	// maxTokens bounds the names that are kept for ever, some 200 bytes each.
	maxTokens = 100_000
	// maxTokenLife bounds what is a life and not a slip of the keyboard.
	maxTokenLife = 10 * 365 * 24 * time.Hour
	// useGrain is how coarse LastUsedAt is, so that not every request writes.
	useGrain = time.Minute
	// useTimeout bounds that write: nobody waits for it longer.
	useTimeout = time.Second
)

var tokenName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Tokens are those that administrators make for others. It authenticates their
// holders, each of whom is an owner by the token's name.
type Tokens struct {
	store TokenStore
	now   func() time.Time
}

// NewTokens returns the tokens in store. now is the machine's clock; nil means
// time.Now.
func NewTokens(store TokenStore, now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	return &Tokens{store: store, now: now}
}

// Authenticate implements Authenticator. The store is asked each time, so that
// what is revoked is so from the next request on. A token that never was, one that
// has expired and one that was revoked get the same answer.
func (ts *Tokens) Authenticate(r *http.Request) (Principal, error) {
	token, apiErr := Bearer(r)
	if apiErr != nil {
		return Principal{}, apiErr
	}
	if !looksIssued(token) {
		return Principal{}, WrongToken()
	}
	ctx := r.Context()
	rec, err := ts.store.FindToken(ctx, sha256.Sum256([]byte(token)))
	now := ts.now()
	switch {
	case err != nil && ctx.Err() != nil:
		return Principal{}, fmt.Errorf("find token: %w", ctx.Err())
	case err != nil && !errors.Is(err, ErrNoToken):
		return Principal{}, Unchecked(err)
	case err != nil || !rec.Valid(now):
		return Principal{}, WrongToken()
	}
	ts.note(ctx, rec, now)
	return Principal{Name: rec.Name, Scopes: rec.Scopes}, nil
}

// note notes that a token is used, unless that was done a moment ago. That it
// cannot be noted is no reason to refuse anybody.
func (ts *Tokens) note(ctx context.Context, rec TokenRecord, now time.Time) {
	if now.Sub(rec.LastUsedAt) < useGrain {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	_ = ts.store.UseToken(ctx, rec.Name, now)
}

// looksIssued reports whether a text has the form of our tokens. What has not
// need not be looked for.
func looksIssued(token string) bool {
	secret, ok := strings.CutPrefix(token, issuedPrefix)
	return ok && len(secret) == base64.RawURLEncoding.EncodedLen(secretBytes)
}

// Create makes a token and returns it, which happens once: what is kept is its
// hash. The error is an *api.Error when the request is not good, or by is not
// allowed that much, matches ErrTokenExists when the name is or was another
// token's, and ErrTooManyTokens.
func (ts *Tokens) Create(ctx context.Context, by Principal, req api.TokenRequest) (string, TokenRecord, error) {
	now := ts.now().Round(0).UTC()
	rec, err := newRecord(by, req, now)
	if err != nil {
		return "", TokenRecord{}, err
	}
	// Several at once may go a little over it, which does not matter.
	if n, err := ts.store.CountTokens(ctx); err != nil {
		return "", TokenRecord{}, fmt.Errorf("count tokens: %w", err)
	} else if n >= maxTokens {
		return "", TokenRecord{}, ErrTooManyTokens
	}
	var raw [secretBytes]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", TokenRecord{}, fmt.Errorf("make token: %w", err)
	}
	token := issuedPrefix + base64.RawURLEncoding.EncodeToString(raw[:])
	rec.Hash = sha256.Sum256([]byte(token))
	if err := ts.store.CreateToken(ctx, rec); err != nil {
		return "", TokenRecord{}, fmt.Errorf("record token: %w", err)
	}
	return token, rec, nil
}

// newRecord checks a request and is the record that it asks for.
func newRecord(by Principal, req api.TokenRequest, now time.Time) (TokenRecord, error) {
	invalid := func(format string, args ...any) error {
		return api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, format, args...)
	}
	if reserved(req.Name) {
		return TokenRecord{}, invalid("name: %q and what begins with \"system:\" are reserved", LocalName)
	}
	if !tokenName.MatchString(req.Name) {
		return TokenRecord{}, invalid("name must be 1 to 63 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit")
	}
	if len(req.Scopes) == 0 {
		return TokenRecord{}, invalid("scopes: a token needs at least one of create, use and admin")
	}
	scopes, err := ParseScopes(req.Scopes)
	if err != nil {
		return TokenRecord{}, invalid("scopes: %v", err)
	}
	if beyond := scopes &^ by.Scopes; beyond != 0 {
		return TokenRecord{}, api.Errorf(http.StatusForbidden, api.CodeForbidden,
			"a token cannot give the scope %s, which the one that makes it lacks", beyond.join(" and "))
	}
	ends := req.ExpiresAt.Round(0).UTC()
	switch {
	case req.TTL < 0:
		return TokenRecord{}, invalid("ttl must not be negative")
	case req.TTL > 0 && !req.ExpiresAt.IsZero():
		return TokenRecord{}, invalid("ttl and expiresAt exclude each other")
	case req.TTL > int64(maxTokenLife/time.Second), ends.Sub(now) > maxTokenLife:
		return TokenRecord{}, invalid("a token lives ten years at most, or for ever")
	case req.TTL > 0:
		ends = now.Add(time.Duration(req.TTL) * time.Second)
	case !req.ExpiresAt.IsZero() && !ends.After(now):
		return TokenRecord{}, invalid("expiresAt is over; it is %s now", now.Format(time.RFC3339))
	}
	return TokenRecord{Name: req.Name, Scopes: scopes, CreatedAt: now, CreatedBy: by.Name, ExpiresAt: ends}, nil
}

// reserved reports whether a name is that of callers who have no token of ours.
func reserved(name string) bool { return name == LocalName || strings.HasPrefix(name, "system:") }

// List returns up to limit tokens by name, from the first after a certain one:
// those that are valid now, or all.
func (ts *Tokens) List(ctx context.Context, all bool, after string, limit int) ([]TokenRecord, error) {
	q := TokenQuery{After: after, Limit: limit}
	if !all {
		q.ValidAt = ts.now()
	}
	list, err := ts.store.ListTokens(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

// Revoke makes a token invalid for ever, and returns its record; one that is so
// already it leaves as it is. The error matches ErrNoToken when there is none.
func (ts *Tokens) Revoke(ctx context.Context, name string) (TokenRecord, error) {
	rec, err := ts.store.RevokeToken(ctx, name, ts.now().Round(0).UTC())
	if err != nil {
		return TokenRecord{}, fmt.Errorf("revoke token: %w", err)
	}
	return rec, nil
}
