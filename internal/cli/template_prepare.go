package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newTemplatePrepare(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "prepare [NAMESPACE/]NAME",
		Short: "Make what the sessions of a template begin from, before the first one asks",
		Long: `Prepare asks the server to boot the template once, import its modules and keep that
moment, from which every session is restored. The first session has the server do
the same in the background; until it is done, sessions are booted, which takes
longer. What is there already and still fits is not made again. Then it waits until
the warm pool of the template, if it has one, is full.`,
		Example: "  agentcube template prepare simple-codeinterpreter",
		Args:    args(cobra.ExactArgs(1)),

		ValidArgsFunction: a.complete(1, a.templateWords),
		RunE: func(cmd *cobra.Command, list []string) error {
			namespace, name, err := templateName(list[0])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			began := time.Now()
			err = c.PrepareTemplate(cmd.Context(), namespace, name, func(step string) {
				if !a.noProgress {
					fmt.Fprintln(a.Stderr, printable(step))
				}
			})
			if err != nil {
				return err
			}
			out := struct {
				Template string  `json:"template"`
				Seconds  float64 `json:"seconds"`
			}{namespace + "/" + name, time.Since(began).Seconds()}
			return a.print(out, func(w io.Writer) { fmt.Fprintf(w, "%s is ready\n", printable(out.Template)) })
		},
	}
}
