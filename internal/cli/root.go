package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/volcano-sh/agentcube/internal/config"
)

// Process is what an invocation gets from the process it runs in.
type Process struct {
	// Args are the arguments without the program's name.
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Version of this build, such as "0.1.0".
	Version string
}

// app is what the commands of one invocation share.
type app struct {
	Process
	cfg        *config.Config
	server     string
	plainText  bool
	output     string
	verbose    bool
	noProgress bool
	// passthrough is set by commands whose exit code is that of the command
	// they run, so that failures of AgentCube itself get codes of their own.
	passthrough bool
}

// Output formats.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// Main runs one invocation and returns the exit code of the process. The first
// SIGINT or SIGTERM ends the work in an orderly way, the second at once.
func Main(p Process) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Once the first signal is here, the default action is back in force.
	context.AfterFunc(ctx, stop)

	a := &app{Process: p, cfg: config.New(nil)}
	root := newRoot(a)
	root.SetArgs(p.Args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.report(ctx, err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "agentcube",
		Short: "Isolated computers for AI agents, in milliseconds",
		Long: "AgentCube gives an AI agent a computer of its own: run a command, run Python,\n" +
			"move files in and out, throw it away. `agentcube up` runs all of it on this machine.",
		Args:              noSubcommand,
		RunE:              showHelp,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(usageError)
	flags := root.PersistentFlags()
	flags.BoolVar(&a.plainText, "plain-text", false, "do without encryption from end to end, as where something before the Router ends TLS")
	flags.StringVar(&a.server, "server", "", "address of the server, for both planes (default http://localhost:8080)")
	flags.StringVarP(&a.output, "output", "o", outputTable, "`format` of what is printed: table or json")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log to stderr what is going on")
	flags.BoolVar(&a.noProgress, "no-progress", false, "show no progress of long work")
	a.cfg.BindFlags(flags, "tokenFile")
	a.completeFlag(root, "output", func(context.Context) ([]string, error) { return []string{outputTable, outputJSON}, nil })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if a.output != outputTable && a.output != outputJSON {
			bad := a.output
			a.output = outputTable
			return usageError(cmd, errors.New("output format "+bad+" is neither table nor json"))
		}
		// Every command sees the settings; those that use them validate them.
		if err := a.cfg.Load(); err != nil {
			return withHint(err, "check --config and AGENTCUBE_CONFIG")
		}
		return nil
	}
	root.AddCommand(
		newUp(a), newWorkloadManager(a), newRouter(a), newRun(a), newInvoke(a), newSession(a), newCheckpoint(a), newImage(a), newTemplate(a), newDoctor(a),
		newConfig(a), newToken(a), newAudit(a), newBench(a), newVersion(a), newExitCodes(), newProbeKVM(a),
	)
	return root
}

// newGroup makes a command that only holds others.
func newGroup(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: noSubcommand, RunE: showHelp}
	cmd.AddCommand(subs...)
	return cmd
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noSubcommand refuses what is not a subcommand, and names those that are near.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	err := &cliError{code: exitUsage, err: errors.New("unknown command " + printable(args[0]))}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err.hint = "did you mean " + cmd.CommandPath() + " " + near[0] + "?"
	} else {
		err.hint = "`" + cmd.CommandPath() + " --help` lists the commands"
	}
	return err
}

// args makes what checks positional arguments return usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, values []string) error {
		if err := check(cmd, values); err != nil {
			return usageError(cmd, err)
		}
		return nil
	}
}

// passThrough makes the exit code of cmd that of the command it runs: what
// AgentCube fails at itself, from the first flag on, has codes of its own. The
// flags end at the first argument, for what follows may have flags, too.
func (a *app) passThrough(cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.passthrough = true
		return usageError(cmd, err)
	})
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, list []string) error {
		a.passthrough = true
		return check(cmd, list)
	}
}

// logger logs to stderr: warnings only, or everything with --verbose.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level}))
}

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
