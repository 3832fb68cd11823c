package bench

import (
	"context"
	"errors"
	"strings"
	"time"
)

// settle is how long new sandboxes are left alone before their memory is
// looked at.
const settle = 2 * time.Second

// memory measures what an idle session costs, and where that is.
func (r *runner) memory(ctx context.Context, series string, from Template, modules []string) (_ []Result, err error) {
	defer func() { err = errors.Join(err, r.endSessions()) }()
	if err := r.prepare(ctx, from); err != nil {
		return nil, err
	}
	r.samples = map[string][]float64{}
	n := min(r.N, heavyRuns)
	var roots []func() (int, error)
	for range n {
		s, remove, err := r.session(ctx, from)
		if err != nil {
			return nil, err
		}
		r.atEnd(remove)
		roots = append(roots, func() (int, error) { return sandboxPID(r.DataDir, s.Info.SandboxID) })
	}
	if err := r.weigh(ctx, series, roots); err != nil {
		return nil, err
	}
	if err := r.endSessions(); err != nil {
		return nil, err
	}
	if r.stock != nil {
		roots = nil
		for range n {
			c, err := r.stock.run(ctx, append([]string{"python3", "-c", idler}, modules...))
			if err != nil {
				return nil, err
			}
			r.atEnd(func() error { c.kill(); return nil })
			roots = append(roots, func() (int, error) { return stockPID(c.id) })
		}
		if err := r.weigh(ctx, refStockRun, roots); err != nil {
			return nil, err
		}
	}
	r.done += n
	r.Step(r.done, r.total)
	result := r.result(series, "MiB", 1, refStockRun)
	for _, name := range partNames() {
		if samples := r.samples[series+name]; len(samples) > 0 {
			result.Parts = append(result.Parts, Part{Name: name, P50: median(samples)})
		}
	}
	return []Result{result}, nil
}

// idler is a Python program that has imported modules and waits.
const idler = `
import sys, time
for name in sys.argv[1:]:
    __import__(name)
print(1, flush=True)
time.sleep(3600)
`

// weigh records the memory of sandboxes, by their first processes.
func (r *runner) weigh(ctx context.Context, series string, roots []func() (int, error)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	for _, root := range roots {
		pid, err := root()
		if err != nil {
			return err
		}
		f, err := footprintOf("/proc", pid)
		if err != nil {
			return err
		}
		r.record(series, mebibytes(f.total()))
		for name, n := range f.parts() {
			r.record(series+name, mebibytes(n))
		}
	}
	return nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// stockPID finds the first process of a stock sandbox.
func stockPID(id string) (int, error) {
	pids, err := sentriesOf("/proc", id)
	if err == nil && len(pids) == 0 {
		err = errors.New("find processes of stock sandbox: there are none")
	}
	if err != nil {
		return 0, err
	}
	return pids[0], nil
}

// partNames lists the parts of a footprint in the order of the report.
func partNames() []string { return strings.Split(allParts, ",") }
