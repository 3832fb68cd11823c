package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// status of a check.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn"
	statusFail status = "fail"
)

// check is one thing that doctor looked at.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	// Detail is what was found.
	Detail string `json:"detail"`
	// Fix is what to do, unless all is well.
	Fix string `json:"fix,omitempty"`
}

func pass(name, format string, args ...any) check {
	return check{Name: name, Status: statusOK, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, detail, fix string) check {
	return check{Name: name, Status: statusWarn, Detail: detail, Fix: fix}
}

func fail(name, detail, fix string) check {
	return check{Name: name, Status: statusFail, Detail: detail, Fix: fix}
}

func newDoctor(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run AgentCube, and how to mend what is wrong",
		Long:  "Doctor changes nothing. It fails when something is missing without which AgentCube\ncannot run sessions; warnings do not make it fail.",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := a.examine(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			failed := 0
			for _, c := range checks {
				if c.Status == statusFail {
					failed++
				}
			}
			out := struct {
				OK     bool    `json:"ok"`
				Checks []check `json:"checks"`
			}{failed == 0, checks}
			err := a.print(out, func(w io.Writer) {
				for _, c := range checks {
					fmt.Fprintf(w, "%-5s %-15s %s\n", c.Status, c.Name, oneLine(c.Detail))
					if c.Fix != "" {
						fmt.Fprintf(w, "%-5s %-15s -> %s\n", "", "", oneLine(c.Fix))
					}
				}
			})
			if err == nil && failed > 0 {
				err = fmt.Errorf("check this machine: %d of %d checks failed", failed, len(checks))
			}
			return err
		},
	}
	a.cfg.BindFlags(cmd.Flags(), "listen", "allowNonLoopback", "dataDir", "templateDir", "defaultImage", "platform")
	return cmd
}

// examine makes all checks, each of which is bounded.
func (a *app) examine(ctx context.Context) []check {
	var checks []check
	for _, examine := range []func(context.Context) []check{
		a.checkSettings, checkRoot, checkKernel, checkUserNamespaces, a.checkKVM, checkCgroups, checkErofs,
		checkDriver, a.checkDisk, checkMemory, a.checkDataDir, a.checkToken, a.checkTemplates, a.checkImage, a.checkPort,
	} {
		if ctx.Err() != nil {
			break
		}
		checks = append(checks, examine(ctx)...)
	}
	return checks
}
