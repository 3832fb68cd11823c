// Package zygote keeps a Python interpreter that has already started, and has
// imported modules, and forks it for runs of Python: most of what a short run
// costs is the start.
//
// Open a [Zygote] and give it to commands as their [proc.Forker]. A run whose
// command line is a plain one of that interpreter gets a forked process; every
// other, and every one for which anything is in doubt, is started in the usual way.
//
// # What a run sees
//
// What a process of its own would see, and nothing of runs before: the fork is
// made from an interpreter in which no code of a user has run. The interpreter is
// held at the end of its own start, before it looks at what it is to run, and goes
// on from there with the command line of the run. Differences that remain:
//
//   - modules that were asked for are in sys.modules already;
//   - /proc/self/cmdline and /proc/self/environ are those of the zygote;
//   - the seed of hash() is the same in all runs of one sandbox, and in the
//     copies of a sandbox, unless PYTHONHASHSEED says otherwise.
//
// Seeds of the random modules are drawn when a process gets its job, so that
// copies of one snapshot do not draw the same numbers.
//
// CPython 3.11 is what was compared; other versions start in the usual way.
//
// # Trust
//
// The zygote runs as the user of commands and is trusted no more than they are.
// It forks twice, so that the process is PicoD's own child, which PicoD adopts
// after having looked at it, moves into the control group of the command, awaits
// and kills like any other. A spare is forked ahead, one at a time. If the zygote
// or its spare is ended, stopped or confused by user code, runs are started in the
// usual way and a new zygote is made, a bounded number of times.
package zygote

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

const (
	maxJob = 64 << 10 // bytes of command line and environment
	// importPatience bounds the start of a zygote with all its modules.
	importPatience = 2 * time.Minute
	// forkPatience bounds the wait for a fork, made ahead.
	forkPatience = 5 * time.Second
	// takePatience bounds the wait of a run for a spare that is being made.
	takePatience = 50 * time.Millisecond
	// restTime is how long the making of the next spare keeps out of the way.
	restTime = 20 * time.Millisecond
	// A zygote that ends is made anew, so often and after so much time.
	maxRestarts  = 8
	restartPause = time.Second
	// steadyTime is how long a zygote must live to have its restarts forgotten.
	steadyTime = 10 * time.Minute
	// crowdedPause is the wait where there is no room for another process.
	crowdedPause = 100 * time.Millisecond
)

// Config says what is kept ready.
type Config struct {
	Modules []string // imported ahead; what cannot be is left out
	Env     []string // environment of commands, as far as it is known
	Dir     string   // working directory while importing
}

// Zygote keeps one spare process ready. It is safe for concurrent use.
type Zygote struct {
	cfg    Config
	runner *proc.Runner
	log    *slog.Logger

	spares  chan *spare
	wanted  chan struct{} // a run waits for a spare
	serving atomic.Pointer[process]
	ready   chan struct{} // closed when the first spare is there, or never will be
	once    sync.Once

	cancel context.CancelFunc
	done   chan struct{}
}

// New returns a Zygote that is not open yet.
func New(cfg Config, runner *proc.Runner, log *slog.Logger) *Zygote {
	return &Zygote{cfg: cfg, runner: runner, log: log, spares: make(chan *spare), wanted: make(chan struct{}, 1), ready: make(chan struct{}), done: make(chan struct{})}
}

// Open begins to make the zygote, behind an open Runner, and returns at once.
func (z *Zygote) Open(ctx context.Context) {
	ctx, z.cancel = context.WithCancel(ctx)
	go func() {
		defer close(z.done)
		defer z.prepared()
		z.keep(ctx)
	}()
}

// Close ends the zygote and its spare. The Runner must still be open.
func (z *Zygote) Close() {
	if z.cancel != nil {
		z.cancel()
		<-z.done
	}
}

// Prepared returns when a spare is ready or will never be. It fails only when
// ctx ends first.
func (z *Zygote) Prepared(ctx context.Context) error {
	select {
	case <-z.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (z *Zygote) prepared() { z.once.Do(func() { close(z.ready) }) }

// keep makes zygotes, one after the other, as each ends.
func (z *Zygote) keep(ctx context.Context) {
	for restarts := 0; ; restarts++ {
		begun := time.Now()
		err := z.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, errors.ErrUnsupported) {
			z.log.Info("no python preload", "reason", err)
			return
		}
		if time.Since(begun) > steadyTime {
			restarts = 0
		}
		if restarts == maxRestarts || z.serving.Load() == nil && restarts > 0 {
			z.log.Warn("python preload given up", "error", err)
			return
		}
		z.serving.Store(nil)
		z.log.Warn("python preload ended, it is started again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause << restarts):
		}
	}
}

// serve runs one zygote until it fails.
func (z *Zygote) serve(ctx context.Context) error {
	p, err := z.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	stop := context.AfterFunc(ctx, func() { _ = p.control.Close() })
	defer stop()
	for _, failed := range p.failed {
		z.log.Warn("python module not preloaded", "module", failed)
	}
	z.serving.Store(p)
	for {
		s, err := p.fork()
		if errors.Is(err, errFork) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(crowdedPause):
			}
			continue
		}
		if err != nil {
			return err
		}
		if ctx.Err() == nil {
			z.prepared()
		}
		select {
		case z.spares <- s:
		case <-ctx.Done():
			s.Discard()
			return ctx.Err()
		}
		z.rest(ctx, s)
	}
}

// rest leaves the processor to the run that just got a spare, for a moment, and
// unless another run waits.
func (z *Zygote) rest(ctx context.Context, s *spare) {
	wait := time.NewTimer(restTime)
	defer wait.Stop()
	select {
	case <-s.done:
	case <-z.wanted:
	case <-wait.C:
	case <-ctx.Done():
	}
}

// Fork returns a process that can become cmd, or nil. See [proc.Forker].
func (z *Zygote) Fork(cmd proc.Command, file string) proc.Spare {
	p := z.serving.Load()
	if p == nil {
		return nil
	}
	job, ok := p.job(cmd, file)
	if !ok {
		return nil
	}
	s := z.take()
	if s == nil {
		return nil
	}
	if s.process != p || !s.living() {
		s.Discard()
		return nil
	}
	s.job = job
	return s
}

// take gets a spare, waiting a moment for one that is being made.
func (z *Zygote) take() *spare {
	select {
	case s := <-z.spares:
		return s
	default:
	}
	select {
	case z.wanted <- struct{}{}:
	default:
	}
	wait := time.NewTimer(takePatience)
	defer wait.Stop()
	select {
	case s := <-z.spares:
		return s
	case <-wait.C:
		return nil
	}
}
