package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
)

// runMargin is how much longer than its command a one-shot session may live,
// for files in and out. It ends sessions whose agentcube was killed.
const runMargin = 15 * time.Minute

// deleteTimeout bounds the deletion of a session after its work, which happens
// also when the work was interrupted.
const deleteTimeout = 30 * time.Second

// maxStdin bounds what is handed to a command as its standard input, so that
// the request stays below PicoD's limit.
const maxStdin = 16 << 20

type runOptions struct {
	template string
	timeout  time.Duration
	in, out  []string
	env      []string
	workdir  string
	stdin    bool
	keep     bool
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] (SCRIPT [ARG...] | -- COMMAND [ARG...])",
		Short: "Run one command or script in a sandbox of its own",
		Long: `Run creates a session, runs one command or script in it, and deletes it.

A SCRIPT is a file of this machine: .py runs with python3, .sh with bash, others
by their #! line. Output and exit code are those of the command; see "agentcube
help exit-codes" for the codes of AgentCube itself. With --output json they are one
document: exitCode, stdout, stderr, and what else is known.`,
		Example: `  agentcube run -- python3 -c 'print(1)'
  agentcube run script.py --its-own-flag
  agentcube run --in data.csv --out summary.csv summarise.py`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, list []string) error {
			return runOnce(cmd.Context(), a, o, list, cmd.ArgsLenAtDash() == 0)
		},
	}
	a.passThrough(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&o.template, "template", "t", client.DefaultTemplate, "template to make the session from, as `name` or namespace/name")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Minute, "ends the command after this time")
	flags.StringArrayVar(&o.in, "in", nil, "copy a file or folder in before the run, as `local[:remote]`; may be repeated")
	flags.StringArrayVar(&o.out, "out", nil, "copy a file or folder out after the run, as `remote[:local]`; may be repeated")
	flags.StringArrayVarP(&o.env, "env", "e", nil, "environment of the command, as `KEY=value`; may be repeated")
	flags.StringVarP(&o.workdir, "workdir", "w", "", "working `directory` of the command (default the workspace)")
	flags.BoolVarP(&o.stdin, "stdin", "i", false, "read standard input to its end and hand it to the command")
	flags.BoolVar(&o.keep, "keep", false, "keep the session and print its id to stderr")
	a.completeFlag(cmd, "template", a.templateWords)
	return cmd
}

func runOnce(ctx context.Context, a *app, o runOptions, list []string, isCommand bool) (err error) {
	req, script, err := o.request(list, isCommand)
	if err != nil {
		return err
	}
	if a.output == outputJSON && slices.ContainsFunc(o.out, func(spec string) bool { return strings.HasSuffix(spec, ":-") }) {
		return &cliError{code: exitUsage, err: errors.New("--out to standard output, where --output json has its one document"),
			hint: "copy it to a file"}
	}
	if o.stdin {
		if req.Stdin, err = a.readStdin(); err != nil {
			return err
		}
	}
	namespace, name, err := templateName(o.template)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()

	create := client.CreateOptions{Namespace: namespace, Template: name, Managed: o.keep}
	if !o.keep {
		create.TTL = (o.timeout + runMargin).Round(time.Second)
	}
	s, err := c.CreateSession(ctx, create)
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintf(a.Stderr, "session: %s\n", s.ID)
	} else {
		defer a.deleteAfter(ctx, s)
	}
	copier := newCopier(a, s)
	for _, spec := range o.in {
		local, remote := splitPair(spec)
		if err := copier.in(ctx, local, remote); err != nil {
			return err
		}
	}
	if script != "" {
		if err := copier.in(ctx, script, filepath.Base(script)); err != nil {
			return err
		}
	}
	return a.execute(ctx, execution{session: s, req: req, kept: o.keep, after: func() error { return copier.outAll(ctx, o.out) }})
}

// request is the command to run, and the local script that it needs or "".
func (o runOptions) request(list []string, isCommand bool) (client.ExecRequest, string, error) {
	req := client.ExecRequest{Timeout: o.timeout, WorkingDir: o.workdir}
	if o.timeout <= 0 {
		return req, "", &cliError{code: exitUsage, err: fmt.Errorf("--timeout %s is not above zero", o.timeout)}
	}
	var err error
	if req.Env, err = keyValues("env", o.env); err != nil {
		return req, "", err
	}
	if isCommand {
		req.Command = list
		return req, "", nil
	}
	script := list[0]
	info, err := os.Stat(script)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return req, "", &cliError{code: exitUsage, err: fmt.Errorf("read script %s: %w", script, reason(err)),
			hint: "to run a command of the sandbox, write -- before it: agentcube run -- " + strings.Join(list, " ")}
	}
	if o.workdir != "" {
		return req, "", &cliError{code: exitUsage, err: errors.New("--workdir cannot be used with a script, which runs in the workspace")}
	}
	remote := "./" + filepath.Base(script)
	switch filepath.Ext(script) {
	case ".py":
		req.Command = []string{"python3", remote}
	case ".sh":
		req.Command = []string{"bash", remote}
	default:
		if info.Mode().Perm()&0o111 == 0 {
			return req, "", &cliError{code: exitUsage, err: fmt.Errorf("script %s is neither .py nor .sh nor executable", script),
				hint: "chmod +x it, or name its interpreter: agentcube run --in " + script + " -- python3 " + filepath.Base(script)}
		}
		req.Command = []string{remote}
	}
	req.Command = append(req.Command, list[1:]...)
	return req, script, nil
}

// readStdin reads standard input to its end, as commands take it whole.
func (a *app) readStdin() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(a.Stdin, maxStdin+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(b) > maxStdin {
		return nil, withHint(fmt.Errorf("read standard input: more than %s", size(maxStdin)), "copy it in as a file")
	}
	return b, nil
}

// deleteAfter deletes a session whose work is over, also after an interrupt. A
// failure does not change what became of the work.
func (a *app) deleteAfter(ctx context.Context, s *client.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
	defer cancel()
	if err := s.Delete(ctx); err != nil {
		fmt.Fprintf(a.Stderr, "agentcube: warning: %s; the session ends by itself when its time is over\n", oneLine(err.Error()))
	}
}

// execution is a command to run in a session.
type execution struct {
	session *client.Session
	req     client.ExecRequest
	// kept says that the session stays when the command has ended.
	kept bool
	// after is called then.
	after func() error
}

// execute runs a command, passes its output through, and returns its exit code as
// an error of its own kind.
func (a *app) execute(ctx context.Context, e execution) error {
	res, err := e.session.Execute(ctx, e.req)
	if err != nil {
		return err
	}
	var id string
	if e.kept {
		id = e.session.ID
	}
	if err := a.passOutput(res, id); err != nil {
		return err
	}
	code := commandExit(res)
	if err := e.after(); err != nil {
		if code == 0 || ctx.Err() != nil {
			return err
		}
		// The command failed first; its code is what matters.
		fmt.Fprintf(a.Stderr, "agentcube: warning: %s\n", oneLine(err.Error()))
	}
	return exitWith(code)
}

// commandExit is the exit code that says what became of a command. Shells say
// 137 of what was killed (which signal it was PicoD does not tell), 127 of what
// is not there and 126 of what cannot be run.
func commandExit(res client.ExecResult) int {
	switch res.StartError {
	case "":
	case client.StartNotFound:
		return exitNoCommand
	default:
		return exitNotStarted
	}
	if res.ExitCode < 0 || res.ExitCode > 255 {
		return exitKilled
	}
	return res.ExitCode
}

// reason is err without the operation and path that os puts before it.
func reason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
