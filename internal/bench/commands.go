package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// starts measures sessions from their creation to their first output.
func (r *runner) starts(ctx context.Context, c int) ([]Result, error) {
	ops := []op{r.start}
	if r.stock != nil {
		ops = append(ops,
			func(ctx context.Context, _ int) error { return r.stockStart(ctx, refStockEcho, "echo", "1") },
			func(ctx context.Context, _ int) error {
				return r.stockStart(ctx, refStockPython, "python3", "-c", "print(1)")
			})
	}
	if err := r.take(ctx, r.N, c, ops...); err != nil {
		return nil, err
	}
	return []Result{
		r.result(Create, "ms", c, refStockEcho),
		r.result(FirstOutput, "ms", c, refStockPython),
	}, nil
}

func (r *runner) start(ctx context.Context, _ int) (err error) {
	begin := time.Now()
	s, remove, err := r.session(ctx)
	if err != nil {
		return err
	}
	created := time.Since(begin)
	defer func() { err = errors.Join(err, remove()) }()
	res, err := s.Execute(ctx, client.ExecRequest{Command: []string{"python3", "-c", "print(1)"}})
	if err != nil {
		return err
	}
	output := time.Since(begin)
	if res.ExitCode != 0 || string(res.Stdout) != "1\n" {
		return fmt.Errorf("run print(1) in session %s: exit code %d, output %q", s.ID, res.ExitCode, res.Stdout)
	}
	r.record(Create, milliseconds(created))
	r.record(FirstOutput, milliseconds(output))
	return nil
}

func (r *runner) stockStart(ctx context.Context, name string, argv ...string) error {
	d, err := r.stock.firstOutput(ctx, argv)
	if err != nil {
		return err
	}
	r.record(name, milliseconds(d))
	return nil
}

// execs measures a command that does nothing, in one session.
func (r *runner) execs(ctx context.Context, c int) (_ []Result, err error) {
	s, remove, err := r.session(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	run := func(ctx context.Context, _ int) error {
		begin := time.Now()
		res, err := s.Execute(ctx, client.ExecRequest{Command: []string{"true"}})
		if err != nil {
			return err
		}
		if res.ExitCode != 0 {
			return fmt.Errorf("run true in session %s: exit code %d: %s", s.ID, res.ExitCode, res.Stderr)
		}
		r.record(ExecTrue, milliseconds(time.Since(begin)))
		return nil
	}
	ops := []op{run}
	if r.Python != "" {
		natives := make([]*native, c)
		for i := range natives {
			if natives[i], err = startNative(ctx, r.Python); err != nil {
				return nil, err
			}
			defer natives[i].stop()
		}
		ops = append(ops, func(_ context.Context, worker int) error {
			d, err := natives[worker].run()
			if err != nil {
				return err
			}
			r.record(refNativeTrue, d)
			return nil
		})
	}
	// The first command of a session pays for what the others find done.
	r.samples = map[string][]float64{}
	for _, do := range ops {
		if err := do(ctx, 0); err != nil {
			return nil, err
		}
	}
	if err := r.take(ctx, r.N, c, ops...); err != nil {
		return nil, err
	}
	return []Result{r.result(ExecTrue, "ms", c, refNativeTrue)}, nil
}

// nativeLoop runs true for every line it reads, and says how long it took.
const nativeLoop = `
import subprocess, sys, time
for line in sys.stdin:
    begin = time.perf_counter()
    subprocess.run(["true"], check=True)
    print((time.perf_counter() - begin) * 1000, flush=True)
`

// native is a Python process on this machine that runs commands.
type native struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startNative(ctx context.Context, python string) (*native, error) {
	n := &native{cmd: exec.CommandContext(ctx, python, "-c", nativeLoop)}
	var err error
	if n.in, err = n.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	n.out = bufio.NewReader(out)
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	return n, nil
}

// run runs one command and returns the milliseconds that Python measured.
func (n *native) run() (float64, error) {
	if _, err := io.WriteString(n.in, "\n"); err != nil {
		return 0, fmt.Errorf("run true natively: %w", err)
	}
	line, err := n.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("run true natively: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

// stop ends the process, which leaves its loop when its input ends.
func (n *native) stop() {
	_ = n.in.Close()
	_ = n.cmd.Wait()
}
