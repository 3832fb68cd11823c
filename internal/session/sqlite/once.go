package sqlite

import (
	"context"
	"fmt"

	"github.com/volcano-sh/agentcube/internal/session"
)

// Uses are noted by one statement, which notes nothing where the use is noted
// already or the owner has too many; which of the two it was is then looked up.
const (
	forgetUses = "DELETE FROM uses WHERE owner = ?1 AND until <= ?2"
	noteUse    = "INSERT INTO uses (owner, id, until) SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM uses WHERE owner = ?1) < ?4" +
		" ON CONFLICT DO NOTHING"
	findUse = "SELECT count(*) FROM uses WHERE owner = ? AND id = ?"
)

// UseOnce implements session.Once.
func (s *Store) UseOnce(ctx context.Context, use session.Use) error {
	const doing = "note use"
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return failure(doing, err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, forgetUses, use.Owner, session.Nanos(use.Now)); err != nil {
		return failure(doing, err)
	}
	result, err := tx.ExecContext(ctx, noteUse, use.Owner, use.ID, session.Nanos(use.Until), use.Most)
	if err != nil {
		return failure(doing, err)
	}
	noted, err := result.RowsAffected()
	if err != nil {
		return failure(doing, err)
	}
	var used int
	if err := tx.QueryRowContext(ctx, findUse, use.Owner, use.ID).Scan(&used); err != nil {
		return failure(doing, err)
	}
	if err := tx.Commit(); err != nil {
		return failure(doing, err)
	}
	switch {
	case noted > 0:
		return nil
	case used > 0:
		return fmt.Errorf("%s: %w", doing, session.ErrUsed)
	}
	return fmt.Errorf("%s: %w", doing, session.ErrTooManyUses)
}
