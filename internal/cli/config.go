package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/internal/config"
)

func newConfig(a *app) *cobra.Command {
	return newGroup("config", "Look at the settings", newConfigPrint(a))
}

func newConfigPrint(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print every setting, its value and where that comes from",
		Long: "Print shows the settings that the other commands would use with the same flags and\n" +
			"environment. A flag wins over the environment, the environment over the file. It\n" +
			"fails when a setting is wrong.",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			out := struct {
				File     string           `json:"file,omitempty"`
				Settings []config.Setting `json:"settings"`
				Warnings []string         `json:"warnings,omitempty"`
			}{a.cfg.File(), a.cfg.Settings(), a.cfg.Warnings()}
			err := a.print(out, func(w io.Writer) {
				rows := make([][]string, 0, len(out.Settings))
				for _, s := range out.Settings {
					rows = append(rows, []string{s.Key, s.Value, s.Source})
				}
				table(w, []string{"SETTING", "VALUE", "FROM"}, rows)
				for _, warning := range out.Warnings {
					fmt.Fprintf(a.Stderr, "agentcube: warning: %s\n", oneLine(warning))
				}
			})
			if err != nil {
				return err
			}
			return a.cfg.Validate()
		},
	}
	a.cfg.BindFlags(cmd.Flags())
	return cmd
}
