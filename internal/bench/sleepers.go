package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/volcano-sh/agentcube/client"
)

// Sleepers makes count paused sessions, wakes random ones of them, and compares
// that with waking the first when it was alone. Each has a file that tells it
// from all others. Names of the results: resume_among_1, resume_among_<count>,
// sleeper_disk_mib (disk for each, with Options.DataDir) and sleeper_runs
// (sandbox processes that are left while all sleep: none).
func Sleepers(ctx context.Context, opts Options, count int) (report Report, err error) {
	if count < 1 {
		return Report{}, errors.New("bench: the number of sleepers must be at least 1")
	}
	r, err := newRunner(opts)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, r.endSleepers(), r.close()) }()
	r.total = count + 2*r.N
	if err := r.prepare(ctx, r.Plain); err != nil {
		return Report{}, err
	}
	first, err := r.sleeper(ctx)
	if err != nil {
		return Report{}, err
	}
	r.counted()
	const alone = "resume_among_1"
	wakeFirst := r.wakeOne(alone, func() *sleeper { return first })
	if err := r.take(ctx, r.N, 1, nil, wakeFirst); err != nil {
		return Report{}, err
	}
	one := r.samples[alone]
	all, err := r.fallAsleep(ctx, count-1)
	if err != nil {
		return Report{}, err
	}
	all = append(all, first)
	held, err := r.held(count)
	if err != nil {
		return Report{}, err
	}
	among := "resume_among_" + strconv.Itoa(count)
	wakeAny := r.wakeOne(among, func() *sleeper { return all[rand.IntN(len(all))] })
	if err := r.take(ctx, r.N, 1, nil, wakeAny); err != nil {
		return Report{}, err
	}
	report.Results = append(report.Results,
		newResult(alone, "ms", 1, slices.Clone(one), "", nil), newResult(among, "ms", 1, r.samples[among], alone, one))
	report.Results = append(report.Results, held...)
	return report, nil
}

// sleeper is a session that sleeps unless it is looked at.
type sleeper struct {
	s    *client.Session
	word string
}

// sleeper makes one. It ends with the run.
func (r *runner) sleeper(ctx context.Context) (*sleeper, error) {
	s, remove, err := r.session(ctx, r.Plain)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.asleep = append(r.asleep, remove)
	r.mu.Unlock()
	one := &sleeper{s: s, word: s.ID}
	if err := s.WriteFile(ctx, "word", []byte(one.word)); err != nil {
		return nil, err
	}
	return one, s.Pause(ctx)
}

// sleeperWorkers make sleepers and end them; more would only wait.
const sleeperWorkers = 4

func (r *runner) fallAsleep(ctx context.Context, count int) ([]*sleeper, error) {
	all := make([]*sleeper, count)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sleeperWorkers)
	for i := range all {
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if all[i], err = r.sleeper(ctx); err == nil {
				r.counted()
			}
			return err
		})
	}
	return all, group.Wait()
}

func (r *runner) counted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	r.Step(r.done, r.total)
}

// wakeOne resumes a sleeper, looks at it, and pauses it again.
func (r *runner) wakeOne(series string, which func() *sleeper) op {
	return func(ctx context.Context, worker int) error {
		one := which()
		if err := r.timed(series, one.s.Resume)(ctx, worker); err != nil {
			return err
		}
		res, err := one.s.Execute(ctx, client.ExecRequest{Command: []string{"cat", "word"}})
		if err != nil {
			return err
		}
		if string(res.Stdout) != one.word {
			return fmt.Errorf("%w: session %s has the word %q", errState, one.s.ID, res.Stdout)
		}
		return one.s.Pause(ctx)
	}
}

// held is what the server holds while all sleep.
func (r *runner) held(count int) ([]Result, error) {
	if r.DataDir == "" {
		return nil, nil
	}
	bytes, err := diskUsage(filepath.Join(r.DataDir, "sandboxes"))
	if err != nil {
		return nil, err
	}
	runs, err := filepath.Glob(filepath.Join(r.DataDir, "runs", "*"))
	if err != nil {
		return nil, err
	}
	return []Result{
		newResult("sleeper_disk_mib", "MiB", 1, []float64{mebibytes(bytes) / float64(count)}, "", nil),
		newResult("sleeper_runs", "count", 1, []float64{float64(len(runs))}, "", nil),
	}, nil
}

// endSleepers ends the sessions, several at a time.
func (r *runner) endSleepers() error {
	r.mu.Lock()
	over := r.asleep
	r.asleep = nil
	r.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(sleeperWorkers)
	for _, end := range over {
		group.Go(end)
	}
	return group.Wait()
}

// diskUsage adds up what the files below dir take, in bytes; links count once.
func diskUsage(dir string) (total int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			total += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("add up disk: %w", err)
	}
	return total, nil
}
