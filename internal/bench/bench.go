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

const (
	// cleanupTimeout bounds the deletion of a session after its use.
	cleanupTimeout = time.Minute
	// sampleTimeout bounds the taking of one sample.
	sampleTimeout = 5 * time.Minute
	// heavyRuns is how often what moves or holds much is measured at most.
	heavyRuns = 5
	// sessionLife ends what a killed run leaves behind.
	sessionLife = 8 * time.Hour
)

// Template names a template.
type Template struct{ Namespace, Name string }

// Options of a run. Client, Plain, N and Concurrency are required.
type Options struct {
	Client *client.Client
	// Plain is a template without a warm pool.
	Plain Template
	// Preloaded is one that has the modules of Preload imported, and no pool
	// either; its zero value means Plain.
	Preloaded Template
	Preload   []string
	// Warm makes a template with the modules of Preload and a warm pool of that
	// size, in place of the one that it made before; size 0 means none. Nil:
	// nothing is measured hot.
	Warm func(ctx context.Context, size int) (Template, error)
	// N is the number of samples of each quantity; what moves 64 MiB or looks
	// at memory is sampled fewer times.
	N int
	// Concurrency lists how many to run at a time, one result for each.
	Concurrency []int
	// Only lists the names to measure; empty means all.
	Only []string

	// DataDir is the server's, to see memory and disk; empty: no such figures.
	DataDir string
	// Standby is for how many templates it keeps a process ready.
	Standby int
	// Program is an executable that is stock gVisor when argv[0] is "runsc",
	// and Rootfs the EROFS file that it starts. Either empty: no comparison with
	// gVisor. Both need root.
	Program, Rootfs string
	// Sidecar is the folder where gVisor finds its kernel as a program of its
	// own, as its releases have it; empty: Program is that, too.
	Sidecar string
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
	over    []func() error // what ends the sessions of this round
	asleep  []func() error // what ends those that sleep on
	done    int
	total   int
}

// newRunner checks the options. The caller calls close.
func newRunner(opts Options) (*runner, error) {
	if opts.N < 1 || len(opts.Concurrency) == 0 || slices.Min(opts.Concurrency) < 1 {
		return nil, errors.New("bench: the number of samples and every concurrency must be at least 1")
	}
	for _, name := range opts.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("bench: there is no measurement %q", name)
		}
	}
	r := &runner{Options: opts}
	if r.Step == nil {
		r.Step = func(int, int) {}
	}
	if r.Preloaded == (Template{}) {
		r.Preloaded = r.Plain
	}
	var err error
	// One key for all sessions: making keys is not what is measured.
	if r.key, err = client.NewKey(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "agentcube-bench-"); err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	if r.Program != "" && r.Rootfs != "" {
		r.stock = &stock{program: r.Program, sidecar: r.Sidecar, rootfs: r.Rootfs, platform: r.Platform, dir: r.dir}
	}
	return r, nil
}

func (r *runner) close() error { return os.RemoveAll(r.dir) }

// Run measures. It deletes every session that it made, also when it fails or
// ctx ends. It needs a temporary folder with room for some 200 MiB.
func Run(ctx context.Context, opts Options) (report Report, err error) {
	r, err := newRunner(opts)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if r.Python != "" {
		if r.Python, err = realPython(ctx, r.Python); err != nil {
			return Report{}, err
		}
	}
	phases := r.phases()
	for _, p := range phases {
		r.total += p.samples
	}
	for _, p := range phases {
		results, err := p.run(ctx)
		for _, res := range results {
			if r.wants(res.Name) {
				report.Results = append(report.Results, res)
			}
		}
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

func (r *runner) wants(names ...string) bool {
	return len(r.Only) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(r.Only, n) })
}

// phase is what is measured together.
type phase struct {
	samples int
	run     func(ctx context.Context) ([]Result, error)
}

// phases lists what there is to do.
func (r *runner) phases() (all []phase) {
	add := func(samples int, run func(ctx context.Context) ([]Result, error), names ...string) {
		if r.wants(names...) {
			all = append(all, phase{samples, run})
		}
	}
	with := func(run func(context.Context, int) ([]Result, error), c int) func(context.Context) ([]Result, error) {
		return func(ctx context.Context) ([]Result, error) { return run(ctx, c) }
	}
	for _, c := range r.Concurrency {
		n := rounds(r.N, c) * c
		if r.Warm != nil {
			add(n, with(r.hot, c), CreateHot, FirstOutputHot)
		}
		add(n, with(r.drained, c), CreateDrained, FirstOutputDrained)
		add(n, with(r.execs, c), ExecTrue)
		add(n, with(r.runCode, c), RunCodePython)
	}
	add(r.N*securitySamples, r.security, ExecEncrypted, SignAndCheck)
	heavy := min(r.N, heavyRuns)
	add(r.N, r.sleep, Pause, Resume, Fork)
	add(heavy, r.transfers, Upload, Download)
	if r.DataDir != "" {
		add(heavy, func(ctx context.Context) ([]Result, error) { return r.memory(ctx, IdleMemory, r.Plain, nil) }, IdleMemory)
		if len(r.Preload) > 0 {
			add(heavy, func(ctx context.Context) ([]Result, error) {
				return r.memory(ctx, IdlePreloaded, r.Preloaded, r.Preload)
			}, IdlePreloaded)
		}
	}
	return all
}

// rounds is how many times c at a time make at least n.
func rounds(n, c int) int { return (n + c - 1) / c }

// op takes one sample; worker tells apart those that run at a time.
type op func(ctx context.Context, worker int) error

// take runs the ops in turns, c of each at a time, until there are n of each.
// The sessions of a round end when it is over.
func (r *runner) take(ctx context.Context, n, c int, before func(context.Context) error, ops ...op) error {
	r.samples = map[string][]float64{}
	for range rounds(n, c) {
		err := r.round(ctx, c, before, ops)
		if err = errors.Join(err, r.endSessions()); err != nil {
			return err
		}
		r.done += c
		r.Step(r.done, r.total)
	}
	return nil
}

func (r *runner) round(ctx context.Context, c int, before func(context.Context) error, ops []op) error {
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
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
	return nil
}

// atEnd keeps what is to be done when the round is over.
func (r *runner) atEnd(end func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = append(r.over, end)
}

func (r *runner) endSessions() error {
	r.mu.Lock()
	over := r.over
	r.over = nil
	r.mu.Unlock()
	var err error
	for _, end := range slices.Backward(over) {
		err = errors.Join(err, end())
	}
	return err
}

// record adds a sample.
func (r *runner) record(name string, value float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples[name] = append(r.samples[name], value)
}

// timed records how long do takes, in milliseconds.
func (r *runner) timed(series string, do func(context.Context) error) op {
	return func(ctx context.Context, _ int) error {
		begin := time.Now()
		if err := do(ctx); err != nil {
			return err
		}
		r.record(series, milliseconds(time.Since(begin)))
		return nil
	}
}

func (r *runner) result(name, unit string, c int, ref string) Result {
	return newResult(name, unit, c, r.samples[name], ref, r.samples[ref])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// session creates a session; the returned function deletes it.
func (r *runner) session(ctx context.Context, from Template) (*client.Session, func() error, error) {
	s, err := r.Client.CreateSession(ctx, client.CreateOptions{
		Namespace: from.Namespace, Template: from.Name, Key: r.key, TTL: sessionLife,
	})
	if err != nil {
		return nil, nil, err
	}
	return s, func() error { return remove(ctx, s) }, nil
}

// remove deletes a session, also when ctx has ended.
func remove(ctx context.Context, s *client.Session) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return s.Delete(ctx)
}

// prepare has the server make what sessions of a template begin from, and
// fill its pool. Servers that prepare nothing are fine.
func (r *runner) prepare(ctx context.Context, t Template) error {
	err := r.Client.PrepareTemplate(ctx, t.Namespace, t.Name, nil)
	if errors.Is(err, client.ErrUnsupported) {
		return nil
	}
	return err
}
