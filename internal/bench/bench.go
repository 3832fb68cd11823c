package bench

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// Names of what is measured.
const (
	Create      = "create"           // the create call
	FirstOutput = "first_output"     // from create to the output of print(1)
	ExecTrue    = "exec_true"        // one command that does nothing
	Upload      = "upload_64mib"     // 64 MiB into a session
	Download    = "download_64mib"   // 64 MiB out of a session
	IdleMemory  = "idle_private_mib" // memory of its own of an idle session
)

// Names returns everything that can be measured, in the order of the report.
func Names() []string { return []string{Create, FirstOutput, ExecTrue, Upload, Download, IdleMemory} }

// Names of the references.
const (
	refStockEcho   = "stock_runsc_echo"
	refStockPython = "stock_runsc_python"
	refNativeTrue  = "python_subprocess_true"
	refLocalHTTP   = "local_http"
)

const (
	// cleanupTimeout bounds the deletion of a session after its use.
	cleanupTimeout = time.Minute
	// sampleTimeout bounds the taking of one sample.
	sampleTimeout = 2 * time.Minute
	// heavyRuns is how often what moves or holds much is measured at most.
	heavyRuns = 5
)

// Options of a run. Client, N and Concurrency are required.
type Options struct {
	Client *client.Client
	// Namespace and Template name what sessions are made from; empty means the
	// client's defaults.
	Namespace, Template string
	// N is the number of samples of each quantity; what moves 64 MiB or looks
	// at memory is sampled fewer times.
	N int
	// Concurrency lists how many to run at a time, one result for each.
	Concurrency []int
	// Only lists the names to measure; empty means all.
	Only []string

	// Program is an executable that is stock gVisor when argv[0] is "runsc",
	// and Rootfs the EROFS file that it starts. Either empty: no comparison with
	// gVisor. Both need root.
	Program, Rootfs string
	// Platform is gVisor's.
	Platform string
	// Python is the interpreter for native references; empty: none.
	Python string

	// Step, when set, is told of every sample that was taken, and how many
	// there will be.
	Step func(done, total int)
}

// runner is one run.
type runner struct {
	Options
	key   *rsa.PrivateKey
	dir   string
	stock *stock // nil: no comparison with gVisor

	mu      sync.Mutex
	samples map[string][]float64
	done    int
	total   int
}

// Run measures. It deletes every session that it made, also when it fails or
// ctx ends. It needs a temporary folder with room for 64 MiB.
func Run(ctx context.Context, opts Options) (_ Report, err error) {
	if opts.N < 1 || len(opts.Concurrency) == 0 || slices.Min(opts.Concurrency) < 1 {
		return Report{}, errors.New("bench: the number of samples and every concurrency must be at least 1")
	}
	for _, name := range opts.Only {
		if !slices.Contains(Names(), name) {
			return Report{}, fmt.Errorf("bench: there is no measurement %q", name)
		}
	}
	r := &runner{Options: opts}
	if r.Step == nil {
		r.Step = func(int, int) {}
	}
	// One key for all sessions: making keys is not what is measured.
	if r.key, err = client.NewKey(); err != nil {
		return Report{}, err
	}
	if r.dir, err = os.MkdirTemp("", "agentcube-bench-"); err != nil {
		return Report{}, fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if r.Program != "" && r.Rootfs != "" {
		r.stock = &stock{program: r.Program, rootfs: r.Rootfs, platform: r.Platform, dir: r.dir}
	}
	r.plan()
	return r.all(ctx)
}

func (r *runner) wants(names ...string) bool {
	return len(r.Only) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(r.Only, n) })
}

// plan counts the samples to come, for progress.
func (r *runner) plan() {
	for _, c := range r.Concurrency {
		n := rounds(r.N, c) * c
		for _, names := range [][]string{{Create, FirstOutput}, {ExecTrue}} {
			if r.wants(names...) {
				r.total += n
			}
		}
	}
	heavy := min(r.N, heavyRuns)
	if r.wants(Upload, Download) {
		r.total += heavy
	}
	if r.wants(IdleMemory) {
		r.total += heavy
	}
}

func (r *runner) all(ctx context.Context) (Report, error) {
	var report Report
	add := func(results []Result, err error) error {
		for _, res := range results {
			if r.wants(res.Name) {
				report.Results = append(report.Results, res)
			}
		}
		return err
	}
	for _, c := range r.Concurrency {
		if r.wants(Create, FirstOutput) {
			if err := add(r.starts(ctx, c)); err != nil {
				return report, err
			}
		}
		if r.wants(ExecTrue) {
			if err := add(r.execs(ctx, c)); err != nil {
				return report, err
			}
		}
	}
	if r.wants(Upload, Download) {
		if err := add(r.transfers(ctx)); err != nil {
			return report, err
		}
	}
	if r.wants(IdleMemory) {
		if err := add(r.memory(ctx)); err != nil {
			return report, err
		}
	}
	return report, nil
}

// rounds is how many times c at a time make at least n.
func rounds(n, c int) int { return (n + c - 1) / c }

// op takes one sample; worker tells apart those that run at a time.
type op func(ctx context.Context, worker int) error

// take runs the ops in turns, c of each at a time, until there are n of each.
func (r *runner) take(ctx context.Context, n, c int, ops ...op) error {
	r.samples = map[string][]float64{}
	for range rounds(n, c) {
		for _, do := range ops {
			errs := make([]error, c)
			var wg sync.WaitGroup
			for worker := range c {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
					defer cancel()
					errs[worker] = do(ctx, worker)
				})
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				return err
			}
		}
		r.done += c
		r.Step(r.done, r.total)
	}
	return nil
}

// record adds a sample.
func (r *runner) record(name string, value float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples[name] = append(r.samples[name], value)
}

func (r *runner) result(name, unit string, c int, ref string) Result {
	return newResult(name, unit, c, r.samples[name], ref, r.samples[ref])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// session creates a session; the returned function deletes it.
func (r *runner) session(ctx context.Context) (*client.Session, func() error, error) {
	s, err := r.Client.CreateSession(ctx, client.CreateOptions{
		Namespace: r.Namespace, Template: r.Template, Key: r.key, TTL: time.Hour,
	})
	if err != nil {
		return nil, nil, err
	}
	return s, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		return s.Delete(ctx)
	}, nil
}
