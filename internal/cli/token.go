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
		Short: "Print where the local token is, or the token itself",
		Long: "Whoever holds the local token can use this machine's AgentCube. The CLI and the\n" +
			"Python SDK read it by themselves; clients that know API_TOKEN get it with\n" +
			"API_TOKEN=$(agentcube token --show).",
		Args: args(cobra.NoArgs),
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
	return cmd
}
