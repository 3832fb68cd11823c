package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

func newSessionFork(a *app) *cobra.Command {
	var count int
	var ttl time.Duration
	var metadata []string
	cmd := &cobra.Command{
		Use:   "fork SESSION",
		Short: "Copy a session with its memory and files, and print the ids of the copies",
		Long: `Fork makes sessions that begin where this one is now: the same files, the same
processes with the same memory. After that they have nothing in common. Either
all are made or none. A session that is bound to a key, as those of the SDK
are, can only be forked by the program that holds the key.`,
		Example: "  for id in $(agentcube session fork --count 3 $parent); do\n" +
			"      agentcube session exec $id -- python3 attempt.py\n  done",
		Args: args(cobra.ExactArgs(1)),

		ValidArgsFunction: a.complete(1, a.sessionWords(living()...)),
		RunE: func(cmd *cobra.Command, list []string) error {
			if count < 1 || count > client.MaxForks {
				return &cliError{code: exitUsage, err: fmt.Errorf("--count %d is not from 1 to %d", count, client.MaxForks)}
			}
			if err := checkTTL(ttl); err != nil {
				return err
			}
			meta, err := keyValues("metadata", metadata)
			if err != nil {
				return err
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
			forks, err := s.Fork(cmd.Context(), count, client.ForkOptions{TTL: ttl, Metadata: meta})
			if err != nil {
				return err
			}
			made := make([]api.Session, 0, len(forks))
			for _, f := range forks {
				made = append(made, f.Info)
			}
			return a.printIDs(made)
		},
	}
	flags := cmd.Flags()
	flags.IntVarP(&count, "count", "n", 1, "make this many")
	flags.DurationVar(&ttl, "ttl", 0, "ends the new sessions after this time (default the template's)")
	flags.StringArrayVarP(&metadata, "metadata", "m", nil, "kept with the new sessions, as `KEY=value`; may be repeated")
	return cmd
}

func checkTTL(ttl time.Duration) error {
	if ttl < 0 || ttl%time.Second != 0 {
		return &cliError{code: exitUsage, err: fmt.Errorf("--ttl %s is not a whole number of seconds", ttl)}
	}
	return nil
}
