package bench

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// sleep measures pausing, resuming and copying a session in which a Python
// process lives that has imported the modules, and asks that process after each
// whether it is what it was. Between these steps the server has time to get ready for
// the next, as it has when people take them.
func (r *runner) sleep(ctx context.Context) (_ []Result, err error) {
	if err := r.prepare(ctx, r.Preloaded); err != nil {
		return nil, err
	}
	s, remove, err := r.session(ctx, r.Preloaded)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	l, err := startLife(ctx, s, r.Preload)
	if err != nil {
		return nil, err
	}
	forkKey, err := client.NewKey()
	if err != nil {
		return nil, err
	}
	ready := then(func(ctx context.Context) error { return r.prepare(ctx, r.Preloaded) })
	ops := []op{
		r.timed(Pause, s.Pause), ready, r.timed(Resume, s.Resume), then(l.check), ready,
		func(ctx context.Context, _ int) error { return r.forkOnce(ctx, l, forkKey) },
		func(context.Context, int) error { return r.endSessions() },
	}
	if r.stock != nil {
		held, err := r.stock.hold(ctx, r.Preload)
		if err != nil {
			return nil, err
		}
		defer held.kill()
		ops = append(ops, r.stockCycle(held))
	}
	if err := r.take(ctx, r.N, 1, nil, ops...); err != nil {
		return nil, err
	}
	return []Result{
		r.result(Pause, "ms", 1, refStockCheckpoint), r.result(Resume, "ms", 1, refStockRestore),
		r.result(Fork, "ms", 1, refStockBoth),
	}, nil
}

// then is what belongs to a round and is not measured.
func then(do func(context.Context) error) op {
	return func(ctx context.Context, _ int) error { return do(ctx) }
}

func (r *runner) forkOnce(ctx context.Context, l *life, key *rsa.PrivateKey) error {
	begin := time.Now()
	forks, err := l.s.Fork(ctx, 1, client.ForkOptions{Keys: []*rsa.PrivateKey{key}})
	if err != nil {
		return err
	}
	r.record(Fork, milliseconds(time.Since(begin)))
	r.atEnd(func() error { return remove(ctx, forks[0]) })
	return l.in(forks[0]).check(ctx)
}

// stockCycle saves and restores a stock sandbox with the same in it.
func (r *runner) stockCycle(held *held) op {
	return func(ctx context.Context, _ int) error {
		begin := time.Now()
		if err := held.checkpoint(ctx); err != nil {
			return err
		}
		saved := time.Since(begin)
		restored, err := held.restore(ctx)
		if err != nil {
			return err
		}
		r.record(refStockCheckpoint, milliseconds(saved))
		r.record(refStockRestore, milliseconds(restored))
		r.record(refStockBoth, milliseconds(saved+restored))
		return nil
	}
}

// lifeProgram holds random memory, counts how often it was asked, and says
// what it has: all of that has to come through a pause and a fork.
const lifeProgram = `
import hashlib, os, sys
for name in sys.argv[1:]:
    __import__(name)
held = os.urandom(8 << 20)
os.mkfifo("ask")
os.mkfifo("answer")
asked = 0
while True:
    with open("ask") as f:
        f.read()
    asked += 1
    with open("answer", "w") as f:
        print(hashlib.sha256(held).hexdigest(), asked, file=f)
`

// life is a process in a session that shows whether its memory is what it was.
type life struct {
	s     *client.Session
	sum   string
	asked int
}

func startLife(ctx context.Context, s *client.Session, modules []string) (*life, error) {
	if err := s.WriteFile(ctx, "life.py", []byte(lifeProgram)); err != nil {
		return nil, err
	}
	start := `nohup python3 life.py "$@" >life.log 2>&1 & while [ ! -e answer ]; do kill -0 $! || { cat life.log; exit 1; }; sleep 0.01; done`
	res, err := s.Execute(ctx, client.ExecRequest{Command: append([]string{"sh", "-c", start, "sh"}, modules...)})
	if err != nil {
		return nil, err
	}
	if res.ExitCode != 0 {
		return nil, fmt.Errorf("start a process in session %s: exit code %d: %s%s", s.ID, res.ExitCode, res.Stdout, res.Stderr)
	}
	l := &life{s: s}
	l.sum, l.asked, err = l.ask(ctx)
	return l, err
}

// in is the same life in a copy of its session.
func (l *life) in(s *client.Session) *life { return &life{s: s, sum: l.sum, asked: l.asked} }

// ask returns what the process says.
func (l *life) ask(ctx context.Context) (sum string, asked int, err error) {
	res, err := l.s.Execute(ctx, client.ExecRequest{Command: []string{"sh", "-c", "echo > ask; cat answer"}})
	if err != nil {
		return "", 0, err
	}
	if n, err := fmt.Sscan(string(res.Stdout), &sum, &asked); n != 2 || res.ExitCode != 0 {
		return "", 0, fmt.Errorf("%w: session %s: exit code %d, %q, %q: %w", errState, l.s.ID, res.ExitCode, res.Stdout, res.Stderr, err)
	}
	return sum, asked, nil
}

// errState: a session is not what it has to be.
var errState = errors.New("the state of a session is wrong")

// check asks the process and compares.
func (l *life) check(ctx context.Context) error {
	sum, asked, err := l.ask(ctx)
	if err != nil {
		return err
	}
	if sum != l.sum || asked != l.asked+1 {
		return fmt.Errorf("%w: session %s: memory %s after %d questions, want %s after %d", errState, l.s.ID, sum, asked, l.sum, l.asked+1)
	}
	l.asked = asked
	return nil
}
