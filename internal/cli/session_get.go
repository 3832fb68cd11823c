package cli

import (
	"io"

	"github.com/spf13/cobra"
)

func newSessionGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get SESSION",
		Short: "Show one session, ended or not",
		Args:  args(cobra.ExactArgs(1)),

		ValidArgsFunction: a.complete(1, a.sessionWords()),
		RunE: func(cmd *cobra.Command, list []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.GetSession(cmd.Context(), list[0])
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { fields(w, describeSession(s)...) })
		},
	}
}
