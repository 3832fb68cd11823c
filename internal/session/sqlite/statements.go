package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// statements are prepared once: Touch and Get are part of every request.
type statements struct {
	get, idempotent, due, pauseDue, findToken              *sql.Stmt
	insert, update, touch, exists, quarantine, purge, ping *sql.Stmt
}

func (p *statements) readers() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&p.get:        "SELECT " + columns + " FROM sessions WHERE id = ?",
		&p.idempotent: "SELECT " + columns + " FROM sessions WHERE owner = ? AND idempotency_key = ?",
		&p.due: "SELECT " + columns + " FROM sessions" +
			" WHERE state <> 'ended' AND quarantined = 0 AND deadline <= ? ORDER BY deadline LIMIT ?",
		&p.pauseDue: "SELECT " + columns + " FROM sessions" +
			" WHERE state = 'running' AND pause_after > 0 AND quarantined = 0 AND pause_at <= ? ORDER BY pause_at LIMIT ?",
		&p.findToken: findToken,
		&p.exists:    "SELECT 1 FROM sessions WHERE id = ?",
	}
}

func (p *statements) writers() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&p.insert: "INSERT INTO sessions (id, owner, kind, state, idempotency_key, created_at, expires_at, idle_timeout, pause_after, ended_at, record, last_activity)" +
			" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		&p.update: "UPDATE sessions SET owner = ?, kind = ?, state = ?, idempotency_key = ?, created_at = ?, expires_at = ?," +
			" idle_timeout = ?, pause_after = ?, ended_at = ?, record = ?, version = version + 1 WHERE id = ? AND version = ?",
		&p.touch:      "UPDATE sessions SET last_activity = ?1 WHERE id = ?2 AND last_activity < ?1",
		&p.quarantine: "UPDATE sessions SET quarantined = 1, ended_at = ? WHERE id = ? AND version = ?",
		&p.purge: "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions" +
			" WHERE (state = 'ended' OR quarantined = 1) AND ended_at < ? LIMIT ?)",
		&p.ping: "UPDATE pings SET count = count + 1",
	}
}

func (p *statements) prepare(ctx context.Context, write, read *sql.DB) error {
	for db, list := range map[*sql.DB]map[**sql.Stmt]string{write: p.writers(), read: p.readers()} {
		for stmt, query := range list {
			var err error
			if *stmt, err = db.PrepareContext(ctx, query); err != nil {
				return failure("prepare statement", err)
			}
		}
	}
	return nil
}

func (p *statements) closeReaders() error { return closeAll(p.readers()) }
func (p *statements) closeWriters() error { return closeAll(p.writers()) }

func closeAll(list map[**sql.Stmt]string) error {
	var errs []error
	for stmt := range list {
		if *stmt != nil {
			errs = append(errs, (*stmt).Close())
		}
	}
	return errors.Join(errs...)
}
