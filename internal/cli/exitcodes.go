package cli

import "github.com/spf13/cobra"

// newExitCodes is a help topic: a command that cannot be run.
func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Exit codes of agentcube:

    0  success
    1  failure
    2  wrong usage
    3  the server cannot be reached
    4  no such session, template, checkpoint, token, image or file; or the session
       has ended, or the checkpoint cannot be used
    5  not authorized
  124  time-out
  130  interrupted

"run" and "session exec" exit with the code of the command that they ran, and
with one of these when there is none:

  124  the command, or AgentCube, ran out of time
  125  AgentCube failed, or the usage was wrong; the message says which
  126  the command is there but cannot be started
  127  there is no such command in the sandbox
  130  interrupted
  137  a signal ended the command`,
	}
}
