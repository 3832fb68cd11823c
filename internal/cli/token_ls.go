package cli

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

func newTokenLs(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List tokens by name, without the tokens themselves",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			tokens, err := listTokens(cmd.Context(), c, all)
			if err != nil {
				return err
			}
			return a.print(api.TokenList{Tokens: tokens}, func(w io.Writer) { tokenTable(w, tokens) })
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list those that have expired or were revoked, too")
	return cmd
}

// listTokens gets page after page until the end.
func listTokens(ctx context.Context, c *client.Client, all bool) ([]api.Token, error) {
	tokens := []api.Token{}
	for opts := (client.TokenListOptions{All: all}); ; {
		page, err := c.ListTokens(ctx, opts)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, page.Tokens...)
		if opts.PageToken = page.NextPageToken; opts.PageToken == "" {
			return tokens, nil
		}
	}
}

func tokenTable(w io.Writer, tokens []api.Token) {
	rows := make([][]string, 0, len(tokens))
	for _, t := range tokens {
		ends := ago(t.ExpiresAt)
		switch {
		case !t.RevokedAt.IsZero():
			ends = "revoked " + ago(t.RevokedAt)
		case ends == "":
			ends = "never"
		case t.ExpiresAt.Before(time.Now()):
			ends = "expired " + ends
		}
		used := ago(t.LastUsedAt)
		if used == "" {
			used = "never"
		}
		rows = append(rows, []string{t.Name, scopeList(t.Scopes), ago(t.CreatedAt), t.CreatedBy, used, ends})
	}
	table(w, []string{"TOKEN", "SCOPES", "CREATED", "BY", "LAST USED", "EXPIRES"}, rows)
}

func scopeList(scopes []api.Scope) string {
	var words []string
	for _, s := range scopes {
		words = append(words, string(s))
	}
	return strings.Join(words, ",")
}

func newTokenRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke NAME...",
		Aliases: []string{"rm", "delete"},
		Short:   "Revoke tokens, for ever and at once",
		Long: `Revoke makes tokens invalid. Requests under way to managed sessions break off.

What was made with them stays until it ends by itself; "agentcube session ls
--all-owners" shows it and "agentcube session rm" ends it. Sessions of the SDK are
used with a key of their own and not with the token: their holder can do so until
they end.`,
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: a.complete(anyNumber, a.tokenWords),
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.each(cmd.Context(), "revoke tokens", "revoked", names, func(ctx context.Context, name string) error {
				_, err := c.RevokeToken(ctx, name)
				return err
			})
		},
	}
}

// tokenWords are the names of the tokens that are valid.
func (a *app) tokenWords(ctx context.Context) ([]string, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	tokens, err := listTokens(ctx, c, false)
	out := make([]string, 0, len(tokens))
	for _, t := range tokens {
		out = append(out, t.Name+"\t"+scopeList(t.Scopes))
	}
	return out, err
}
