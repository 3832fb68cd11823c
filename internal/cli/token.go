package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/internal/auth"
)

func newToken(a *app) *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Show the local token; make, list and revoke others",
		Long: "Without a command, token prints where the local token is, or with --show the token\n" +
			"itself. Whoever holds it can do everything with this machine's AgentCube, except use what\n" +
			"other owners have. The CLI and the Python SDK read it by themselves; clients that know\n" +
			"API_TOKEN get it with API_TOKEN=$(agentcube token --show).\n\n" +
			"`agentcube token create` makes tokens for others: each is an owner of its own, may do\n" +
			"what its scopes say, and can expire and be revoked.",
		Args: noSubcommand,
		RunE: func(*cobra.Command, []string) error {
			out := struct {
				File  string `json:"file"`
				Token string `json:"token,omitempty"`
			}{File: a.cfg.TokenFile}
			if !show {
				return a.print(out, func(w io.Writer) { fmt.Fprintln(w, out.File) })
			}
			var err error
			out.Token, err = auth.ReadTokenFile(a.cfg.TokenFile)
			if errors.Is(err, fs.ErrNotExist) {
				return &cliError{code: exitNotFound, err: err, hint: "the first `agentcube up` makes the token"}
			}
			if err != nil {
				return err
			}
			return a.print(out, func(w io.Writer) { fmt.Fprintln(w, out.Token) })
		},
	}
	cmd.Flags().BoolVar(&show, "show", false, "print the token")
	cmd.AddCommand(newTokenCreate(a), newTokenLs(a), newTokenRevoke(a))
	return cmd
}
