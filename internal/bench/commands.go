package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/volcano-sh/agentcube/client"
)

// execs measures a command that does nothing, in one session.
func (r *runner) execs(ctx context.Context, c int) ([]Result, error) {
	err := r.commands(ctx, c, ExecTrue, refNativeTrue, []string{"check_call", "true"}, func(ctx context.Context, s *client.Session) error {
		res, err := s.Execute(ctx, client.ExecRequest{Command: []string{"true"}})
		if err != nil {
			return err
		}
		if res.ExitCode != 0 {
			return fmt.Errorf("run true in session %s: exit code %d: %s", s.ID, res.ExitCode, res.Stderr)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []Result{r.result(ExecTrue, "ms", c, refNativeTrue)}, nil
}

// runCode measures what run_code of the Python SDK asks for: a script is
// written, run by a new interpreter, and removed.
func (r *runner) runCode(ctx context.Context, c int) ([]Result, error) {
	native := []string{"check_output", r.Python, "-c", "print(1)"}
	err := r.commands(ctx, c, RunCodePython, refNativePython, native, func(ctx context.Context, s *client.Session) error {
		script := "script_" + rand.Text() + ".py"
		if err := s.WriteFile(ctx, script, []byte("print(1)")); err != nil {
			return err
		}
		res, err := s.Execute(ctx, client.ExecRequest{Command: []string{"python3", script}, Remove: []string{script}})
		if err != nil {
			return err
		}
		return printedOne(s, res)
	})
	if err != nil {
		return nil, err
	}
	return []Result{r.result(RunCodePython, "ms", c, refNativePython)}, nil
}

// commands measures something in one session beside a native command.
func (r *runner) commands(
	ctx context.Context, c int, series, ref string, call []string, do func(context.Context, *client.Session) error,
) (err error) {
	if err := r.prepare(ctx, r.Plain); err != nil {
		return err
	}
	s, remove, err := r.session(ctx, r.Plain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	ops := []op{r.timed(series, func(ctx context.Context) error { return do(ctx, s) })}
	if r.Python != "" {
		natives := make([]*native, c)
		for i := range natives {
			if natives[i], err = startNative(ctx, r.Python, call); err != nil {
				return err
			}
			defer natives[i].stop()
		}
		ops = append(ops, func(_ context.Context, worker int) error {
			d, err := natives[worker].run()
			if err != nil {
				return err
			}
			r.record(ref, d)
			return nil
		})
	}
	// The first command of a session pays for what the others find done.
	r.samples = map[string][]float64{}
	for _, do := range ops {
		if err := do(ctx, 0); err != nil {
			return err
		}
	}
	return r.take(ctx, r.N, c, nil, ops...)
}
