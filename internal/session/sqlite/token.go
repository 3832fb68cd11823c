package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/session"
)

const tokenColumns = "name, hash, scopes, created_by, created_at, expires_at, last_used_at, revoked_at"

// Tokens are made and listed seldom; finding one is part of a request, and has a
// prepared statement.
const (
	insertToken = "INSERT INTO tokens (" + tokenColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
	findToken   = "SELECT " + tokenColumns + " FROM tokens WHERE hash = ?"
	listTokens  = "SELECT " + tokenColumns + " FROM tokens WHERE name > ?1" +
		" AND (?2 = 0 OR revoked_at = 0 AND (expires_at = 0 OR expires_at > ?2)) ORDER BY name LIMIT ?3"
	countTokens = "SELECT count(*) FROM tokens"
	revokeToken = "UPDATE tokens SET revoked_at = CASE revoked_at WHEN 0 THEN ? ELSE revoked_at END WHERE name = ? RETURNING " + tokenColumns
	useToken    = "UPDATE tokens SET last_used_at = ?1 WHERE name = ?2 AND last_used_at < ?1"
)

// CreateToken implements auth.TokenStore.
func (s *Store) CreateToken(ctx context.Context, r auth.TokenRecord) error {
	doing := fmt.Sprintf("create token %q", r.Name)
	_, err := s.write.ExecContext(ctx, insertToken, r.Name, r.Hash[:], r.Scopes.String(), r.CreatedBy,
		session.Nanos(r.CreatedAt), session.Nanos(r.ExpiresAt), session.Nanos(r.LastUsedAt), session.Nanos(r.RevokedAt))
	if taken(err) {
		return fmt.Errorf("%s: %w", doing, auth.ErrTokenExists)
	}
	if err != nil {
		return failure(doing, err)
	}
	return nil
}

// FindToken implements auth.TokenStore.
func (s *Store) FindToken(ctx context.Context, hash auth.TokenHash) (auth.TokenRecord, error) {
	return oneToken("find token", s.stmts.findToken.QueryRowContext(ctx, hash[:]))
}

// RevokeToken implements auth.TokenStore. What has been revoked is so after a
// power cut too, unlike other writes, of which that may undo the last.
func (s *Store) RevokeToken(ctx context.Context, name string, at time.Time) (auth.TokenRecord, error) {
	doing := fmt.Sprintf("revoke token %q", name)
	r, err := oneToken(doing, s.write.QueryRowContext(ctx, revokeToken, session.Nanos(at), name))
	if err != nil {
		return r, err
	}
	if _, err := s.write.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		return auth.TokenRecord{}, failure(doing, err)
	}
	return r, nil
}

func oneToken(doing string, row *sql.Row) (auth.TokenRecord, error) {
	r, err := scanToken(row)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, sql.ErrNoRows):
		return auth.TokenRecord{}, fmt.Errorf("%s: %w", doing, auth.ErrNoToken)
	}
	return auth.TokenRecord{}, failure(doing, err)
}

// ListTokens implements auth.TokenStore.
func (s *Store) ListTokens(ctx context.Context, q auth.TokenQuery) ([]auth.TokenRecord, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = -1
	}
	rows, err := s.read.QueryContext(ctx, listTokens, q.After, session.Nanos(q.ValidAt), limit)
	if err != nil {
		return nil, failure("list tokens", err)
	}
	defer rows.Close()
	var all []auth.TokenRecord
	for rows.Next() {
		r, err := scanToken(rows)
		if err != nil {
			return nil, failure("list tokens", err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, failure("list tokens", err)
	}
	return all, nil
}

// CountTokens implements auth.TokenStore.
func (s *Store) CountTokens(ctx context.Context) (n int, err error) {
	if err := s.read.QueryRowContext(ctx, countTokens).Scan(&n); err != nil {
		return 0, failure("count tokens", err)
	}
	return n, nil
}

// UseToken implements auth.TokenStore.
func (s *Store) UseToken(ctx context.Context, name string, at time.Time) error {
	if _, err := s.write.ExecContext(ctx, useToken, session.Nanos(at), name); err != nil {
		return failure(fmt.Sprintf("use token %q", name), err)
	}
	return nil
}

func scanToken(row interface{ Scan(...any) error }) (auth.TokenRecord, error) {
	var r auth.TokenRecord
	var hash []byte
	var scopes string
	var created, expires, used, revoked int64
	if err := row.Scan(&r.Name, &hash, &scopes, &r.CreatedBy, &created, &expires, &used, &revoked); err != nil {
		return auth.TokenRecord{}, err
	}
	var names []api.Scope
	for name := range strings.SplitSeq(scopes, ",") {
		names = append(names, api.Scope(name))
	}
	var err error
	if r.Scopes, err = auth.ParseScopes(names); err != nil {
		return auth.TokenRecord{}, fmt.Errorf("read record of token %q: %w", r.Name, err)
	}
	if copy(r.Hash[:], hash) != len(r.Hash) {
		return auth.TokenRecord{}, fmt.Errorf("read record of token %q: its hash is too short", r.Name)
	}
	r.CreatedAt, r.ExpiresAt, r.LastUsedAt, r.RevokedAt = moment(created), moment(expires), moment(used), moment(revoked)
	return r, nil
}

// moment undoes session.Nanos.
func moment(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}
