package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

func newTokenCreate(a *app) *cobra.Command {
	var scopes []string
	var expires string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token for somebody else, and print it once",
		Long: `Create makes a token and prints it. That happens once: the server keeps its hash.

NAME is 1 to 63 lower-case letters, digits, '.', '_' and '-'. It is the owner of what is
made with the token, so it is never given again, also when the token is revoked or has
expired. Another token is another owner, who sees none of it.

Scopes are

    create  make sessions, forks and checkpoints
    use     see, pause, resume and end the owner's sessions, and use the managed ones
    admin   make, list and revoke tokens; see and end what other owners have, without
            using it`,
		Example: "  agentcube token create ci --expires 30d\n" +
			"  API_TOKEN=$(agentcube token create nightly --scope create,use --expires 2027-01-31T00:00:00Z)\n" +
			"  agentcube token create watcher --scope admin",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, list []string) error {
			opts, err := tokenOptions(scopes, expires)
			if err != nil {
				return usageError(cmd, err)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			made, err := c.CreateToken(cmd.Context(), list[0], opts)
			if err != nil {
				return err
			}
			return a.print(made, func(w io.Writer) {
				fmt.Fprintln(w, printable(made.Token))
				fmt.Fprintln(a.Stderr, "agentcube: this token is not shown again")
			})
		},
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", []string{string(api.ScopeCreate), string(api.ScopeUse)}, "what its holder may do: `create,use,admin`, or some of them")
	cmd.Flags().StringVar(&expires, "expires", "", "how long it is valid, such as `30d` or 12h, or until when, in RFC 3339 (default for ever)")
	a.completeFlag(cmd, "scope", scopeWords)
	return cmd
}

// scopeWords are the scopes, and those lists of them that one may want.
func scopeWords(context.Context) ([]string, error) {
	return []string{"create", "use", "admin", "create,use", "create,use,admin"}, nil
}

// tokenOptions reads the flags of a new token.
func tokenOptions(scopes []string, expires string) (client.TokenOptions, error) {
	var opts client.TokenOptions
	for _, scope := range scopes {
		switch s := api.Scope(scope); s {
		case api.ScopeCreate, api.ScopeUse, api.ScopeAdmin:
			opts.Scopes = append(opts.Scopes, s)
		default:
			return opts, fmt.Errorf("--scope: %s is none of create, use and admin", printable(scope))
		}
	}
	if len(opts.Scopes) == 0 {
		return opts, fmt.Errorf("--scope is empty; it is some of create, use and admin")
	}
	var err error
	opts.TTL, opts.ExpiresAt, err = parseExpiry(expires)
	return opts, err
}

// parseExpiry reads a time, or how long it is until then. Neither is set for "".
func parseExpiry(text string) (ttl time.Duration, at time.Time, err error) {
	if text == "" {
		return 0, at, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return 0, at, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, at, nil
		}
	} else if ttl, err := time.ParseDuration(text); err == nil && ttl > 0 && ttl%time.Second == 0 {
		return ttl, at, nil
	}
	return 0, at, fmt.Errorf("--expires: %s is neither a number of days, hours or seconds, such as 30d or 12h, nor a time, such as 2027-01-31T00:00:00Z", printable(text))
}
