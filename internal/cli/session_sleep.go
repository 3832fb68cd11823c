package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

func newSessionPause(a *app) *cobra.Command {
	return newSessionChange(a, &cobra.Command{
		Use:   "pause SESSION...",
		Short: "Put sessions to sleep: memory and files to disk",
		Long: `Pause freezes sessions with everything that runs in them and keeps them on disk,
where they take neither memory nor CPU. The next request to a session wakes it,
and so does "agentcube session resume". Connections and commands under way break
off; what runs in the background goes on where it was. A session paused by its
owner stays until its longest life is over.`,
		Example: "  agentcube session pause $id\n  agentcube session exec $id -- echo awake again",

		ValidArgsFunction: a.complete(anyNumber, a.sessionWords(api.StateRunning)),
	}, "pause sessions", (*client.Client).PauseSession)
}

func newSessionResume(a *app) *cobra.Command {
	return newSessionChange(a, &cobra.Command{
		Use:   "resume SESSION...",
		Short: "Wake paused sessions",
		Long: `Resume wakes paused sessions, so that their next request need not wait for it. Every
request to a paused session does the same by itself.`,

		ValidArgsFunction: a.complete(anyNumber, a.sessionWords(api.StatePaused)),
	}, "resume sessions", (*client.Client).ResumeSession)
}

// newSessionChange makes a command that does the same to each of some sessions,
// all of them even when one fails, and prints the ids of those it was done to.
func newSessionChange(
	a *app, cmd *cobra.Command, label string, change func(*client.Client, context.Context, string) (api.Session, error),
) *cobra.Command {
	cmd.Args = args(cobra.MinimumNArgs(1))
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		bar := a.progressSteps(label, int64(len(ids)))
		defer bar.finish()
		changed := []api.Session{}
		var errs []error
		for _, id := range ids {
			s, err := change(c, cmd.Context(), id)
			if err != nil {
				errs = append(errs, err)
			} else {
				changed = append(changed, s)
			}
			bar.add(1)
			if cmd.Context().Err() != nil {
				break
			}
		}
		bar.finish()
		return errors.Join(append(errs, a.printIDs(changed))...)
	}
	return cmd
}

// printIDs prints sessions: their ids alone, for people and scripts.
func (a *app) printIDs(sessions []api.Session) error {
	return a.print(api.SessionList{Sessions: sessions}, func(w io.Writer) {
		for _, s := range sessions {
			fmt.Fprintln(w, printable(s.SessionID))
		}
	})
}
