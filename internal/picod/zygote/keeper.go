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
	// forkPatience bounds the wait for a fork.
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

// keeper keeps one interpreter, and a spare of it if that is to be.
type keeper struct {
	cfg    Config
	ahead  bool // fork a spare before there is a run for it
	runner *proc.Runner
	log    *slog.Logger

	spares  chan *spare   // ahead only
	wanted  chan struct{} // a run waits for a spare
	serving atomic.Pointer[process]
	ready   chan struct{} // closed when runs can be served, or never will be
	once    sync.Once

	cancel context.CancelFunc
	done   chan struct{}
}

func newKeeper(cfg Config, ahead bool, runner *proc.Runner, log *slog.Logger) *keeper {
	return &keeper{
		cfg: cfg, ahead: ahead, runner: runner, log: log,
		spares: make(chan *spare), wanted: make(chan struct{}, 1),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
}

func (k *keeper) open(ctx context.Context) {
	ctx, k.cancel = context.WithCancel(ctx)
	go func() {
		defer close(k.done)
		defer k.prepared()
		k.keep(ctx)
	}()
}

func (k *keeper) close() {
	if k.cancel != nil {
		k.cancel()
		<-k.done
	}
}

func (k *keeper) prepared() { k.once.Do(func() { close(k.ready) }) }

// keep makes zygotes, one after the other, as each ends.
func (k *keeper) keep(ctx context.Context) {
	for restarts := 0; ; restarts++ {
		begun := time.Now()
		err := k.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, errors.ErrUnsupported) {
			k.log.Info("no python preload", "reason", err)
			return
		}
		if time.Since(begun) > steadyTime {
			restarts = 0
		}
		if served := k.serving.Swap(nil); restarts == maxRestarts || served == nil && restarts > 0 {
			k.log.Warn("python preload given up", "error", err)
			return
		}
		k.log.Warn("python preload ended, it is started again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause << restarts):
		}
	}
}

// serve runs one zygote until it fails.
func (k *keeper) serve(ctx context.Context) error {
	p, err := k.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	stop := context.AfterFunc(ctx, func() { _ = p.control.Close() })
	defer stop()
	for _, failed := range p.failed {
		k.log.Warn("python module not preloaded", "module", failed)
	}
	k.serving.Store(p)
	if k.ahead {
		return k.supply(ctx, p)
	}
	k.prepared()
	select {
	case err := <-p.broken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// supply keeps a spare ready.
func (k *keeper) supply(ctx context.Context, p *process) error {
	for {
		s, err := p.fork(ahead)
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
			k.prepared()
		}
		select {
		case k.spares <- s:
		case <-ctx.Done():
			s.Discard()
			return ctx.Err()
		}
		k.rest(ctx, s)
	}
}

// rest leaves the processor to the run that just got a spare, for a moment, and
// unless another run waits.
func (k *keeper) rest(ctx context.Context, s *spare) {
	wait := time.NewTimer(restTime)
	defer wait.Stop()
	select {
	case <-s.done:
	case <-k.wanted:
	case <-wait.C:
	case <-ctx.Done():
	}
}

// runs tells whether file is the interpreter that is kept.
func (k *keeper) runs(file string) bool {
	p := k.serving.Load()
	return p != nil && p.is(file)
}

// fork returns a process that can become cmd, or nil.
func (k *keeper) fork(cmd proc.Command, file string) *spare {
	p := k.serving.Load()
	if p == nil {
		return nil
	}
	job, ok := p.job(cmd, file)
	if !ok {
		return nil
	}
	var s *spare
	if k.ahead {
		s = k.take()
	} else {
		s = p.demand()
	}
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
func (k *keeper) take() *spare {
	select {
	case s := <-k.spares:
		return s
	default:
	}
	select {
	case k.wanted <- struct{}{}:
	default:
	}
	wait := time.NewTimer(takePatience)
	defer wait.Stop()
	select {
	case s := <-k.spares:
		return s
	case <-wait.C:
		return nil
	}
}
