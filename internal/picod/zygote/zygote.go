// Package zygote keeps Python interpreters that have already started, and forks
// them for runs of Python: most of what a short run costs is the start.
//
// Open a [Zygote] and give it to commands as their [proc.Forker]. A run whose
// command line is a plain one of that interpreter gets a forked process; every
// other, and every one for which anything is in doubt, is started in the usual way.
//
// # Two interpreters
//
// One has imported nothing. It is small, and a spare process is forked from it
// ahead. Where modules are to be preloaded there is another that has imported them,
// for runs whose source names one: a copy of a large interpreter costs more time
// than most runs, and a spare of it as much memory as itself, so that it is
// forked when such a run is there. Looking for the names is a matter of speed only:
// a run that begins in the wrong interpreter imports what it needs.
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
// It forks so that the process is PicoD's own child, which PicoD adopts
// after having looked at it, moves into the control group of the command, awaits
// and kills like any other. If the zygote or its spare is ended, stopped or
// confused by user code, runs are started in the usual way and a new zygote is
// made, a bounded number of times.
package zygote

import (
	"context"
	"log/slog"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

// Config says what is kept ready.
type Config struct {
	Modules []string // imported ahead; what cannot be is left out
	Env     []string // environment of commands, as far as it is known
	Dir     string   // working directory while importing
}

// Zygote keeps interpreters ready. It is safe for concurrent use.
type Zygote struct {
	plain  *keeper
	loaded *keeper // nil: there is nothing to preload
	names  names
}

// New returns a Zygote that is not open yet.
func New(cfg Config, runner *proc.Runner, log *slog.Logger) *Zygote {
	z := &Zygote{names: namesOf(cfg.Modules)}
	if len(cfg.Modules) > 0 {
		z.loaded = newKeeper(cfg, false, runner, log)
	}
	cfg.Modules = nil
	z.plain = newKeeper(cfg, true, runner, log)
	return z
}

// Open begins to make the interpreters, behind an open Runner, and returns at once.
func (z *Zygote) Open(ctx context.Context) {
	for _, k := range z.keepers() {
		k.open(ctx)
	}
}

// Close ends the interpreters and the spare. The Runner must still be open.
func (z *Zygote) Close() {
	for _, k := range z.keepers() {
		k.close()
	}
}

// Prepared returns when all that is to be ready is, or never will be. It fails
// only when ctx ends first.
func (z *Zygote) Prepared(ctx context.Context) error {
	for _, k := range z.keepers() {
		select {
		case <-k.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (z *Zygote) keepers() []*keeper {
	if z.loaded == nil {
		return []*keeper{z.plain}
	}
	return []*keeper{z.plain, z.loaded}
}

// Fork returns a process that can become cmd, or nil. See [proc.Forker].
func (z *Zygote) Fork(cmd proc.Command, file string) proc.Spare {
	// An interface that holds a nil pointer is not nil.
	if z.loaded != nil && z.loaded.runs(file) && z.names.in(cmd) {
		if s := z.loaded.fork(cmd, file); s != nil {
			return s
		}
	}
	if s := z.plain.fork(cmd, file); s != nil {
		return s
	}
	return nil
}
