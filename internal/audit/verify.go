package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/volcano-sh/agentcube/api/audit"
)

// Report is what Verify has found.
type Report struct {
	Events uint64 `json:"events"`
	// First is the head that the oldest line follows: of what was removed, or the
	// zero value.
	First audit.Head `json:"first"`
	Last  audit.Head `json:"last"`
	// Seals is how many statements of sandboxes were checked, and Unsealed how many
	// sessions paused or ended without one.
	Seals    int `json:"seals"`
	Unsealed int `json:"unsealed"`
	// Missing is how many events could not be written.
	Missing uint64 `json:"missing,omitempty"`
}

// ErrRemoved is wrapped by the error of Verify when the oldest lines are gone
// without a line that says so.
var ErrRemoved = errors.New("the oldest lines are missing, and nothing says that they were removed")

// Verify checks the record in a folder: each line follows the one before, what is
// gone was removed as recorded, and statements are of the sandboxes that they are
// said to be of. The heads of expect, of an earlier Verify, must be in it, or before
// what it begins with.
func Verify(ctx context.Context, dir string, expect ...audit.Head) (Report, error) {
	v := verification{certificates: map[string]string{}, expect: slices.Clone(expect)}
	var err error
	v.First, v.Last, err = Read(ctx, dir, v.event)
	if err != nil {
		return v.Report, err
	}
	if v.First.Seq > 0 && !slices.Contains(v.removed, v.First) {
		return v.Report, fmt.Errorf("%w: line %d is the first", ErrRemoved, v.First.Seq+1)
	}
	for _, h := range v.expect {
		if h.Seq > v.First.Seq {
			return v.Report, fmt.Errorf("line %d is not what it was: the record was cut off before it, or written anew", h.Seq)
		}
	}
	return v.Report, nil
}

type verification struct {
	Report
	certificates map[string]string // of sessions
	removed      []audit.Head
	expect       []audit.Head // not met yet
}

func (v *verification) event(l audit.Line, e audit.Event) error {
	v.Events++
	v.expect = slices.DeleteFunc(v.expect, func(h audit.Head) bool { return h == l.Head })
	if e.Certificate != "" {
		v.certificates[e.Session] = e.Certificate
	}
	switch e.Action {
	case audit.Removed:
		if e.Removed != nil {
			v.removed = append(v.removed, *e.Removed)
		}
	case audit.Missing:
		v.Missing += e.Count
	}
	switch certificate := v.certificates[e.Session]; {
	case e.Seal == nil:
	case e.Seal.Statement == "":
		v.Unsealed++
	case certificate == "":
		// Its session began before what is left of the record.
	default:
		if _, err := audit.ParseStatement(e.Seal.Statement, certificate, e.Session); err != nil {
			return fmt.Errorf("line %d: %w", l.Seq, err)
		}
		v.Seals++
	}
	return nil
}
