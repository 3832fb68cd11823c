package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

func newSessionCp(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cp (LOCAL SESSION:REMOTE | SESSION:REMOTE LOCAL)",
		Short: "Copy files and folders into or out of a session",
		Long: "Cp copies a file or folder. A remote path is relative to the workspace, or absolute.\n" +
			"A target that is a folder or ends in a slash gets the name of the source. \"-\" as LOCAL\n" +
			"is standard input or output. A local name with a colon is written with ./ before it.",
		Example: "  agentcube session cp data.csv $id:data.csv\n  agentcube session cp $id:summary.csv .",
		Args:    args(cobra.ExactArgs(2)),

		ValidArgsFunction: a.completeCopy,
		RunE: func(cmd *cobra.Command, list []string) error {
			fromID, from, fromRemote := remoteArg(list[0])
			toID, to, toRemote := remoteArg(list[1])
			if fromRemote == toRemote {
				return usageError(cmd, errors.New("one of the two must be of the form SESSION:PATH, the other a local path"))
			}
			if fromRemote && from == "" {
				return usageError(cmd, errors.New("the path in the session is empty"))
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Attach(cmd.Context(), fromID+toID, nil)
			if err != nil {
				return err
			}
			if fromRemote {
				return newCopier(a, s).out(cmd.Context(), from, to)
			}
			return newCopier(a, s).in(cmd.Context(), from, to)
		},
	}
}

// remoteArg takes "SESSION:PATH" apart; what has a slash before the colon, or
// no colon, is a local path.
func remoteArg(arg string) (session, path string, remote bool) {
	id, rest, found := strings.Cut(arg, ":")
	if !found || id == "" || strings.Contains(id, "/") {
		return "", arg, false
	}
	return id, rest, true
}
