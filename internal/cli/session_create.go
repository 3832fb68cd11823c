package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
)

func newSessionCreate(a *app) *cobra.Command {
	var template, checkpoint, idempotencyKey string
	var ttl time.Duration
	var metadata []string
	var given givenFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a session and print its id",
		Example: "  id=$(agentcube session create)\n  agentcube session exec $id -- python3 -c 'print(1)'\n" +
			"  agentcube session create --env-file secrets.env --file settings.toml",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var namespace, name string
			var err error
			// A checkpoint knows its template.
			if checkpoint == "" || cmd.Flags().Changed("template") {
				if namespace, name, err = templateName(template); err != nil {
					return err
				}
			}
			meta, err := keyValues("metadata", metadata)
			if err != nil {
				return err
			}
			if err := checkTTL(ttl); err != nil {
				return err
			}
			opts := client.CreateOptions{
				Namespace: namespace, Template: name, TTL: ttl, Metadata: meta,
				Checkpoint: checkpoint, IdempotencyKey: idempotencyKey, Managed: true,
			}
			if opts.Env, err = given.variables(); err != nil {
				return err
			}
			if opts.Files, err = given.read(); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.CreateSession(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return a.print(s.Info, func(w io.Writer) { fmt.Fprintln(w, s.ID) })
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&template, "template", "t", client.DefaultTemplate, "template to make the session from, as `name` or namespace/name")
	flags.StringVar(&checkpoint, "checkpoint", "", "begin from the state kept under this `name`; it knows its template")
	flags.DurationVar(&ttl, "ttl", 0, "ends the session after this time (default the template's)")
	flags.StringArrayVarP(&metadata, "metadata", "m", nil, "kept with the session, as `KEY=value`; may be repeated")
	given.add(flags)
	flags.StringVar(&idempotencyKey, "idempotency-key", "", "the same `key` gives the same session")
	a.completeFlag(cmd, "template", a.templateWords)
	a.completeFlag(cmd, "checkpoint", a.checkpointWords)
	return cmd
}
