package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
)

func newSessionExec(a *app) *cobra.Command {
	var timeout time.Duration
	var env []string
	var workdir string
	var stdin bool
	cmd := &cobra.Command{
		Use:   "exec [flags] SESSION -- COMMAND [ARG...]",
		Short: "Run a command in a session",
		Long: "Exec runs a command and passes its output and exit code through; see\n" +
			"\"agentcube help exit-codes\" for the codes of AgentCube itself. No shell is involved.\n" +
			"With --output json they are one document: exitCode, stdout, stderr, and what else is known.",
		Args: func(cmd *cobra.Command, list []string) error {
			if len(execCommand(list)) == 0 {
				return usageError(cmd, errors.New("name a session and, after --, a command"))
			}
			return nil
		},
		ValidArgsFunction: a.complete(1, a.sessionWords(living()...)),
		RunE: func(cmd *cobra.Command, list []string) error {
			req := client.ExecRequest{Command: execCommand(list), Timeout: timeout, WorkingDir: workdir}
			if timeout <= 0 {
				return &cliError{code: exitUsage, err: fmt.Errorf("--timeout %s is not above zero", timeout)}
			}
			var err error
			if req.Env, err = keyValues("env", env); err != nil {
				return err
			}
			if stdin {
				if req.Stdin, err = a.readStdin(); err != nil {
					return err
				}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Attach(cmd.Context(), list[0], nil)
			if err != nil {
				return err
			}
			return a.execute(cmd.Context(), execution{session: s, req: req, kept: true, after: func() error { return nil }})
		},
	}
	a.passThrough(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&timeout, "timeout", client.DefaultTimeout, "ends the command after this time")
	flags.StringArrayVarP(&env, "env", "e", nil, "environment of the command, as `KEY=value`; may be repeated")
	flags.StringVarP(&workdir, "workdir", "w", "", "working `directory` of the command (default the workspace)")
	flags.BoolVarP(&stdin, "stdin", "i", false, "read standard input to its end and hand it to the command")
	return cmd
}

// execCommand is the command among the arguments: what comes after the session,
// with or without the dashes before it.
func execCommand(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 && list[1] == "--" {
		return list[2:]
	}
	return list[1:]
}
