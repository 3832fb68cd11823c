package metrics

import (
	"context"
	"errors"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// word is what an error is counted as.
type word struct {
	is   error
	word string
}

// outcome is the word for how something ended: "ok", that of the first error that
// err is, or "error".
func outcome(err error, words []word) string {
	if err == nil {
		return "ok"
	}
	for _, w := range words {
		if errors.Is(err, w.is) {
			return w.word
		}
	}
	return "error"
}

// failure is an outcome as spans have it.
func failure(outcome string) string {
	if outcome == "ok" {
		return ""
	}
	return outcome
}

// sandboxWords are how an operation of a driver ends.
func sandboxWords() []word {
	return []word{
		{sandbox.ErrFull, "full"}, {sandbox.ErrDiskFull, "disk-full"}, {sandbox.ErrRefused, "refused"}, {sandbox.ErrPaused, "paused"},
		{sandbox.ErrNotFound, "gone"}, {sandbox.ErrNotRunning, "gone"}, {sandbox.ErrNoImage, "no-image"},
		{sandbox.ErrNoSnapshot, "no-snapshot"}, {sandbox.ErrBadSnapshot, "bad-snapshot"}, {sandbox.ErrUnsupported, "unsupported"},
		{context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"},
	}
}

// storeWords are how an operation of a store ends. That something is not there, or
// is there already, is an answer.
func storeWords() []word {
	return []word{
		{session.ErrAway, "away"}, {session.ErrUnavailable, "unavailable"},
		{session.ErrNotFound, "ok"}, {session.ErrExists, "ok"}, {session.ErrNoCheckpoint, "ok"}, {session.ErrBadCursor, "ok"},
		{session.ErrUsed, "ok"}, {session.ErrTooManyUses, "ok"}, {session.ErrNoSeat, "ok"}, {session.ErrOwnerSeated, "ok"},
		{auth.ErrNoToken, "ok"}, {auth.ErrTokenExists, "ok"},
		{context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"},
	}
}
