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
	var all, everybody bool
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
			opts := client.ListOptions{States: living(), AllOwners: everybody}
			if all {
				opts.States = nil
			}
			sessions, err := listSessions(cmd.Context(), c, opts, limit)
			if err != nil {
				return err
			}
			return a.print(api.SessionList{Sessions: sessions}, func(w io.Writer) { sessionTable(w, sessions, everybody) })
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list sessions that have ended, too")
	cmd.Flags().BoolVar(&everybody, "all-owners", false, "list those of every owner; needs the scope admin")
	cmd.Flags().IntVarP(&limit, "limit", "n", 0, "list at most this many (default all)")
	return cmd
}

// listSessions gets page after page until limit, or the end when it is 0.
func listSessions(ctx context.Context, c *client.Client, opts client.ListOptions, limit int) ([]api.Session, error) {
	sessions := []api.Session{}
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

func sessionTable(w io.Writer, sessions []api.Session, owners bool) {
	head := []string{"SESSION", "TEMPLATE", "STATE", "AUTH", "CREATED", "LAST ACTIVITY", "EXPIRES"}
	if owners {
		head = append(head, "OWNER")
	}
	rows := make([][]string, 0, len(sessions))
	for _, s := range sessions {
		state, next := string(s.State), ago(s.ExpiresAt)
		if s.State == api.StateEnded {
			state += " (" + string(s.Fate) + ")"
			next = ""
		}
		row := []string{
			s.SessionID, s.Namespace + "/" + s.Name, state, string(s.Auth), ago(s.CreatedAt), ago(s.LastActivityAt), next,
		}
		if owners {
			row = append(row, s.Owner)
		}
		rows = append(rows, row)
	}
	table(w, head, rows)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
