package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
)

func newSessionRm(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "rm (SESSION... | --all)",
		Aliases: []string{"delete"},
		Short:   "Delete sessions with everything in them",
		Args: func(cmd *cobra.Command, list []string) error {
			if all == (len(list) > 0) {
				return usageError(cmd, errors.New("name the sessions, or say --all"))
			}
			return nil
		},
		ValidArgsFunction: a.complete(anyNumber, a.sessionWords(living()...)),
		RunE: func(cmd *cobra.Command, ids []string) error {
			ctx := cmd.Context()
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			if all {
				sessions, err := listSessions(ctx, c, client.ListOptions{States: living()}, 0)
				if err != nil {
					return err
				}
				for _, s := range sessions {
					ids = append(ids, s.SessionID)
				}
			}
			return a.each(ctx, "delete sessions", "deleted", ids, c.DeleteSession)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "delete all sessions of this owner")
	return cmd
}
