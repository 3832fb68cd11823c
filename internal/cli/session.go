package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
)

func newSession(a *app) *cobra.Command {
	cmd := newGroup("session", "Create, list, use, pause, copy and delete sessions",
		newSessionCreate(a), newSessionLs(a), newSessionGet(a), newSessionRm(a), newSessionExec(a), newSessionCp(a),
		newSessionPause(a), newSessionResume(a), newSessionFork(a), newSessionCheckpoint(a))
	cmd.Long = "Sessions made here are managed: whoever holds the token that they were made with can use them."
	return cmd
}

// describe returns the names and values of a session, for people.
func describeSession(s api.Session) []string {
	pairs := []string{
		"ID", s.SessionID,
		"Template", s.Namespace + "/" + s.Name,
		"Kind", s.Kind,
		"State", string(s.State),
		"Fate", string(s.Fate),
		"Reason", s.Reason,
		"Forked from", s.Parent,
		"Checkpoint", s.Checkpoint,
		"Owner", s.Owner,
		"Auth", string(s.Auth),
		"Isolation", s.Isolation,
		"Sandbox", s.SandboxID,
		"Created", moment(s.CreatedAt),
		"Last activity", moment(s.LastActivityAt),
		"Idle time-out", (time.Duration(s.IdleTimeoutSeconds * float64(time.Second))).String(),
	}
	if s.PausedAt != nil {
		pairs = append(pairs, "Paused", moment(*s.PausedAt))
	}
	if s.EndedAt != nil {
		pairs = append(pairs, "Ended", moment(*s.EndedAt))
	} else {
		pairs = append(pairs, "Expires", moment(s.ExpiresAt))
	}
	for _, key := range sortedKeys(s.Metadata) {
		pairs = append(pairs, "Metadata "+printable(key), s.Metadata[key])
	}
	return pairs
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime) + " (" + ago(t) + ")"
}
