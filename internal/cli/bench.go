package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/bench"
)

func newBench(a *app) *cobra.Command {
	var n int
	var concurrency []int
	var only []string
	var template, file string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a running AgentCube beside references on the same machine",
		Long: `Bench measures, through a running server, what users wait for, and beside each
number a reference taken in the same run: a stock start of the same gVisor and the
same image, a native fork and exec from Python, a plain local HTTP server. A ratio
below 1 is faster, or smaller, than the reference.

It has to run as root on the machine of the server to compare with gVisor and to
see memory. What can be measured: ` + strings.Join(bench.Names(), ", ") + ".",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, err := templateName(template)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Health(cmd.Context()); err != nil {
				return err
			}
			opts := bench.Options{
				Client: c, Namespace: namespace, Template: name, N: n, Concurrency: concurrency, Only: only,
				Platform: platform(cmd.Context(), a.cfg.Platform),
			}
			if err := a.references(cmd, &opts); err != nil {
				return err
			}
			bar := a.progressSteps("bench", -1)
			opts.Step = func(done, total int) { bar.of(int64(done), int64(total)) }
			report, err := bench.Run(cmd.Context(), opts)
			bar.finish()
			if err != nil {
				return err
			}
			return a.printReport(report, file)
		},
	}
	flags := cmd.Flags()
	flags.IntVarP(&n, "samples", "n", 20, "samples of each quantity")
	flags.IntSliceVarP(&concurrency, "concurrency", "c", []int{1}, "how many at a time; a list gives a result for each")
	flags.StringSliceVar(&only, "only", nil, "measure only these `names`")
	flags.StringVarP(&template, "template", "t", client.DefaultTemplate, "template to make sessions from, as `name` or namespace/name")
	flags.StringVar(&file, "file", "", "write the JSON report to this `file`, too")
	a.cfg.BindFlags(flags, "dataDir", "templateDir", "platform", "defaultImage")
	return cmd
}

// references finds what there is to compare with, and says what is missing.
func (a *app) references(cmd *cobra.Command, opts *bench.Options) error {
	note := func(format string, args ...any) {
		fmt.Fprintf(a.Stderr, "agentcube: note: "+format+"\n", args...)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		note("no comparison with native commands: python3 is not installed")
	}
	opts.Python = python
	if os.Geteuid() != 0 {
		note("no comparison with stock gVisor: not root")
		return nil
	}
	rootfs, err := a.rootfsOf(cmd, opts.Namespace, opts.Template)
	if err != nil {
		note("no comparison with stock gVisor: %s", oneLine(err.Error()))
		return nil
	}
	if opts.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	opts.Rootfs = rootfs
	return nil
}

// rootfsOf is the file that sandboxes of the template have as their root.
func (a *app) rootfsOf(cmd *cobra.Command, namespace, name string) (string, error) {
	dir, err := templates(a.cfg, a.logger())
	if err != nil {
		return "", err
	}
	if err := dir.Load(cmd.Context()); err != nil {
		return "", err
	}
	t, err := dir.Get(api.KindCodeInterpreter, namespace, name)
	if err != nil {
		return "", err
	}
	store, err := a.images(cmd.Context())
	if err != nil {
		return "", err
	}
	path, _, err := store.Rootfs(cmd.Context(), t.Image)
	return path, err
}

func (a *app) printReport(report bench.Report, file string) error {
	if file != "" {
		if err := writeJSONFile(file, report); err != nil {
			return err
		}
	}
	return a.print(report, func(w io.Writer) { reportTable(w, report) })
}

func reportTable(w io.Writer, report bench.Report) {
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
	rows := make([][]string, 0, len(report.Results))
	for _, r := range report.Results {
		row := []string{
			r.Name, strconv.Itoa(r.Concurrency), strconv.Itoa(r.N), r.Unit, number(r.P50), number(r.P95), number(r.P99), "", "", "",
		}
		if r.Reference != nil {
			row[7], row[8] = r.Reference.Name, number(r.Reference.P50)
		}
		if r.Ratio != nil {
			row[9] = number(*r.Ratio) + "x"
		}
		rows = append(rows, row)
	}
	table(w, []string{"WHAT", "AT A TIME", "N", "UNIT", "P50", "P95", "P99", "REFERENCE", "ITS P50", "RATIO"}, rows)
}

func writeJSONFile(path string, v any) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report %s: %w", path, reason(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return encodeJSON(f, v)
}
