package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// hot measures sessions, from their creation to their first output, that find
// a sandbox ready. The reference runs while the pool is full, not while it is
// being refilled.
func (r *runner) hot(ctx context.Context, c int) (_ []Result, err error) {
	t, err := r.Warm(ctx, c)
	if err != nil {
		return nil, err
	}
	var ops []op
	if r.stock != nil {
		ops = append(ops, func(ctx context.Context, _ int) error {
			d, err := r.stock.firstOutput(ctx, []string{"python3", "-c", "print(1)"})
			if err == nil {
				r.record(refStockRun, milliseconds(d))
			}
			return err
		})
	}
	ops = append(ops, r.start(t, CreateHot, FirstOutputHot))
	full := func(ctx context.Context) error { return r.prepare(ctx, t) }
	if err := r.take(ctx, r.N, c, full, ops...); err != nil {
		return nil, err
	}
	results := []Result{r.result(CreateHot, "ms", c, refStockRun), r.result(FirstOutputHot, "ms", c, refStockRun)}
	_, err = r.Warm(ctx, 0)
	return results, err
}

// drained measures the same where each sandbox has to be restored. What the
// server keeps ready without a pool it has made again before each round.
func (r *runner) drained(ctx context.Context, c int) ([]Result, error) {
	if err := r.prepare(ctx, r.Preloaded); err != nil {
		return nil, err
	}
	ops := []op{r.start(r.Preloaded, CreateDrained, FirstOutputDrained)}
	if r.stock != nil {
		held, err := r.stock.hold(ctx, r.Preload)
		if err != nil {
			return nil, err
		}
		err = held.checkpoint(ctx)
		held.kill()
		if err != nil {
			return nil, err
		}
		ops = append(ops, r.restored(held))
	}
	again := func(ctx context.Context) error { return r.prepare(ctx, r.Preloaded) }
	if err := r.take(ctx, r.N, c, again, ops...); err != nil {
		return nil, err
	}
	return []Result{
		r.result(CreateDrained, "ms", c, refStockRestore), r.result(FirstOutputDrained, "ms", c, refStockRestore),
	}, nil
}

// restored takes a sample of restoring what a stock sandbox was.
func (r *runner) restored(held *held) op {
	return func(ctx context.Context, _ int) error {
		d, err := held.restore(ctx)
		if err != nil {
			return err
		}
		r.record(refStockRestore, milliseconds(d))
		return nil
	}
}

// start takes one sample of each of the two; the session lives on for the
// rest of the round.
func (r *runner) start(from Template, create, firstOutput string) op {
	return func(ctx context.Context, _ int) error {
		begin := time.Now()
		s, remove, err := r.session(ctx, from)
		if err != nil {
			return err
		}
		created := time.Since(begin)
		r.atEnd(remove)
		res, err := s.Execute(ctx, client.ExecRequest{Command: []string{"python3", "-c", "print(1)"}})
		if err != nil {
			return err
		}
		output := time.Since(begin)
		if err := printedOne(s, res); err != nil {
			return err
		}
		r.record(create, milliseconds(created))
		r.record(firstOutput, milliseconds(output))
		return nil
	}
}

func printedOne(s *client.Session, res client.ExecResult) error {
	if res.ExitCode != 0 || string(res.Stdout) != "1\n" {
		return fmt.Errorf("run print(1) in session %s: exit code %d, output %q, %q", s.ID, res.ExitCode, res.Stdout, res.Stderr)
	}
	return nil
}
