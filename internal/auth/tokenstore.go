package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// Errors that token stores return, wrapped; test with errors.Is.
var (
	// ErrNoToken says that there is no such token.
	ErrNoToken = errors.New("token not found")
	// ErrTokenExists says that there is, or was, a token of that name, or the
	// same token.
	ErrTokenExists = errors.New("token already exists")
)

// TokenHash is what is kept of a token: with 256 random bits in it, nobody gets
// from here to there.
type TokenHash [sha256.Size]byte

// TokenRecord is what is known of a token. Times are UTC, of the machine's clock
// and not of a session.Clock: when a token ends is told to people as a date.
type TokenRecord struct {
	// Name identifies the token for ever, also when it is not valid any more: as
	// the owner of what was made with it, it never becomes anybody else's.
	Name      string
	Hash      TokenHash
	Scopes    Scopes
	CreatedAt time.Time
	CreatedBy string    // the Name of the principal who made it
	ExpiresAt time.Time // zero: never
	// LastUsedAt is coarse; zero: not yet.
	LastUsedAt time.Time
	RevokedAt  time.Time // zero: it is not
}

// Valid reports whether the token is good at a moment of the machine's clock.
func (r TokenRecord) Valid(now time.Time) bool {
	return r.RevokedAt.IsZero() && (r.ExpiresAt.IsZero() || now.Before(r.ExpiresAt))
}

// API is the token as the control plane shows it.
func (r TokenRecord) API() api.Token {
	return api.Token{
		Name: r.Name, Scopes: r.Scopes.Names(), CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt,
		ExpiresAt: r.ExpiresAt, LastUsedAt: r.LastUsedAt, RevokedAt: r.RevokedAt,
	}
}

// TokenQuery selects tokens for ListTokens. Its zero value selects all.
type TokenQuery struct {
	// ValidAt, when not zero, leaves out what is not valid at that time.
	ValidAt time.Time
	// After is the last name of the page before.
	After string
	// Limit is the size of a page; 0 means that there is no bound.
	Limit int
}

// TokenStore keeps the records of tokens; none is ever removed. Its methods are
// safe for concurrent use by several goroutines and, where the store is shared,
// several processes: what one has acknowledged holds for all of them, and
// survives the death of the process. Every store passes the suite in tokentest.
//
// Times come back as they were given, in UTC, at least to the millisecond.
type TokenStore interface {
	// CreateToken adds a record; ErrTokenExists when one has the name or the hash.
	CreateToken(ctx context.Context, r TokenRecord) error

	// FindToken returns the record of a token, valid or not; ErrNoToken otherwise.
	FindToken(ctx context.Context, hash TokenHash) (TokenRecord, error)

	// ListTokens returns those that match, by name.
	ListTokens(ctx context.Context, q TokenQuery) ([]TokenRecord, error)

	// CountTokens says how many records there are.
	CountTokens(ctx context.Context) (int, error)

	// RevokeToken sets RevokedAt, unless it is set, and returns the record as it
	// is then; ErrNoToken when there is none.
	RevokeToken(ctx context.Context, name string, at time.Time) (TokenRecord, error)

	// UseToken moves LastUsedAt forward to at; an earlier time changes nothing,
	// and neither does a name that there is not.
	UseToken(ctx context.Context, name string, at time.Time) error
}
