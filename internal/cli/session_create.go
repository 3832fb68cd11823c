package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
)

func newSessionCreate(a *app) *cobra.Command {
	var template, idempotencyKey string
	var ttl time.Duration
	var metadata []string
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Create a session and print its id",
		Example: "  id=$(agentcube session create)\n  agentcube session exec $id -- python3 -c 'print(1)'",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, err := templateName(template)
			if err != nil {
				return err
			}
			meta, err := keyValues("metadata", metadata)
			if err != nil {
				return err
			}
			if ttl < 0 || ttl%time.Second != 0 {
				return &cliError{code: exitUsage, err: fmt.Errorf("--ttl %s is not a whole number of seconds", ttl)}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.CreateSession(cmd.Context(), client.CreateOptions{
				Namespace: namespace, Template: name, TTL: ttl, Metadata: meta,
				IdempotencyKey: idempotencyKey, Managed: true,
			})
			if err != nil {
				return err
			}
			return a.print(s.Info, func(w io.Writer) { fmt.Fprintln(w, s.ID) })
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&template, "template", "t", client.DefaultTemplate, "template to make the session from, as `name` or namespace/name")
	flags.DurationVar(&ttl, "ttl", 0, "ends the session after this time (default the template's)")
	flags.StringArrayVarP(&metadata, "metadata", "m", nil, "kept with the session, as `KEY=value`; may be repeated")
	flags.StringVar(&idempotencyKey, "idempotency-key", "", "the same `key` gives the same session")
	return cmd
}
