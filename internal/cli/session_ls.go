package cli

import (
	"context"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// living are the states of sessions that have not ended.
func living() []api.State {
	return []api.State{api.StatePending, api.StateRunning, api.StatePaused}
}

func newSessionLs(a *app) *cobra.Command {
	var all bool
	var limit int
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List sessions, newest first",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			states := living()
			if all {
				states = nil
			}
			sessions, err := listSessions(cmd.Context(), c, states, limit)
			if err != nil {
				return err
			}
			return a.print(api.SessionList{Sessions: sessions}, func(w io.Writer) { sessionTable(w, sessions) })
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list sessions that have ended, too")
	cmd.Flags().IntVarP(&limit, "limit", "n", 0, "list at most this many (default all)")
	return cmd
}

// listSessions gets page after page until limit, or the end when it is 0.
func listSessions(ctx context.Context, c *client.Client, states []api.State, limit int) ([]api.Session, error) {
	sessions := []api.Session{}
	opts := client.ListOptions{States: states}
	for {
		if limit > 0 {
			opts.Limit = min(limit-len(sessions), 100)
		}
		page, err := c.ListSessions(ctx, opts)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, page.Sessions...)
		opts.PageToken = page.NextPageToken
		if opts.PageToken == "" || limit > 0 && len(sessions) >= limit {
			return sessions, nil
		}
	}
}

func sessionTable(w io.Writer, sessions []api.Session) {
	rows := make([][]string, 0, len(sessions))
	for _, s := range sessions {
		state, next := string(s.State), ago(s.ExpiresAt)
		if s.State == api.StateEnded {
			state += " (" + string(s.Fate) + ")"
			next = ""
		}
		rows = append(rows, []string{
			s.SessionID, s.Namespace + "/" + s.Name, state, string(s.Auth), ago(s.CreatedAt), ago(s.LastActivityAt), next,
		})
	}
	table(w, []string{"SESSION", "TEMPLATE", "STATE", "AUTH", "CREATED", "LAST ACTIVITY", "EXPIRES"}, rows)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
