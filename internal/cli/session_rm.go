package cli

import (
	"errors"
	"fmt"
	"io"

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
			bar := a.progressSteps("delete sessions", int64(len(ids)))
			defer bar.finish()
			deleted := []string{}
			var errs []error
			for _, id := range ids {
				if err := c.DeleteSession(ctx, id); err != nil {
					errs = append(errs, err)
				} else {
					deleted = append(deleted, id)
				}
				bar.add(1)
			}
			bar.finish()
			out := struct {
				Deleted []string `json:"deleted"`
			}{deleted}
			err = a.print(out, func(w io.Writer) {
				for _, id := range deleted {
					fmt.Fprintln(w, printable(id))
				}
			})
			return errors.Join(append(errs, err)...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "delete all sessions of this owner")
	return cmd
}
