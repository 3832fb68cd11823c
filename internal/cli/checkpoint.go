package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
)

func newSessionCheckpoint(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint SESSION NAME",
		Short: "Keep the memory and files of a session, to begin others from",
		Long: `Checkpoint keeps the state of a session, as it is now, under a name of letters,
digits, '.', '_' and '-'. The session goes on. "agentcube session create --checkpoint
NAME" begins sessions from it, as often as wanted, also when this one has ended. What
is not used for a week, or as the server is set, is removed.`,
		Example: "  agentcube session checkpoint $id loaded\n  again=$(agentcube session create --checkpoint loaded)",
		Args:    args(cobra.ExactArgs(2)),

		ValidArgsFunction: a.complete(1, a.sessionWords(living()...)),
		RunE: func(cmd *cobra.Command, list []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Attach(cmd.Context(), list[0], nil)
			if err != nil {
				return err
			}
			kept, err := s.Checkpoint(cmd.Context(), list[1])
			if err != nil {
				return err
			}
			return a.print(kept, func(w io.Writer) { fmt.Fprintln(w, printable(kept.Name)) })
		},
	}
}

func newCheckpoint(a *app) *cobra.Command {
	cmd := newGroup("checkpoint", "List and remove what sessions were kept as", newCheckpointLs(a), newCheckpointRm(a))
	cmd.Long = `A checkpoint is the memory and the files of a session at one moment. "agentcube session
checkpoint" makes one, "agentcube session create --checkpoint" begins a session from it.`
	return cmd
}

func newCheckpointLs(a *app) *cobra.Command {
	var everybody bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List checkpoints, newest first",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			get := c.Checkpoints
			if everybody {
				get = c.AllCheckpoints
			}
			list, err := get(cmd.Context())
			if err != nil {
				return err
			}
			if list == nil {
				list = []api.Checkpoint{}
			}
			return a.print(api.CheckpointList{Checkpoints: list}, func(w io.Writer) { checkpointTable(w, list, everybody) })
		},
	}
	cmd.Flags().BoolVar(&everybody, "all-owners", false, "list those of every owner; needs the scope admin")
	return cmd
}

func checkpointTable(w io.Writer, list []api.Checkpoint, owners bool) {
	head := []string{"CHECKPOINT", "TEMPLATE", "AUTH", "SIZE", "CREATED", "EXPIRES", "OF SESSION"}
	if owners {
		head = append(head, "OWNER")
	}
	rows := make([][]string, 0, len(list))
	for _, c := range list {
		row := []string{
			c.Name, c.Namespace + "/" + c.TemplateName, string(c.Auth), size(c.SizeBytes), ago(c.CreatedAt), ago(c.ExpiresAt), c.SessionID,
		}
		if owners {
			row = append(row, c.Owner)
		}
		rows = append(rows, row)
	}
	table(w, head, rows)
}

func newCheckpointRm(a *app) *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"delete"},
		Short:   "Remove checkpoints; sessions that began from them stay",
		Args:    args(cobra.MinimumNArgs(1)),

		ValidArgsFunction: a.complete(anyNumber, a.checkpointWords),
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			remove := c.DeleteCheckpoint
			if owner != "" {
				remove = func(ctx context.Context, name string) (api.Checkpoint, error) {
					return c.DeleteCheckpointOf(ctx, owner, name)
				}
			}
			return a.each(cmd.Context(), "delete checkpoints", "deleted", names, func(ctx context.Context, name string) error {
				_, err := remove(ctx, name)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&owner, "owner", "", "remove those of another `owner`; needs the scope admin")
	return cmd
}
