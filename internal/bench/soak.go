package bench

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// SoakReport is what became of a soak. It is a success when Wrong, Failed and
// Left are all empty.
type SoakReport struct {
	Seconds float64 `json:"seconds"`
	Workers int     `json:"workers"`
	// Operations are how long each kind took, in milliseconds.
	Operations []Result `json:"operations"`
	// Refused counts what the server had no room for (429), and was tried again.
	Refused int `json:"refused"`
	// Wrong counts sessions that were not what they had to be, and Failed
	// operations that failed; Errors has the first of both.
	Wrong  int      `json:"wrong"`
	Failed int      `json:"failed"`
	Errors []string `json:"errors,omitempty"`
	// Left lists what the server still had when all sessions were deleted.
	Left []string `json:"left,omitempty"`
}

// OK reports whether nothing went wrong.
func (s SoakReport) OK() bool { return s.Wrong == 0 && s.Failed == 0 && len(s.Left) == 0 }

const (
	// soakSessions is how many sessions a worker has at most.
	soakSessions = 3
	// soakErrors is how many messages are kept.
	soakErrors = 20
	// soakEmpty is how long a server may take to give up everything.
	soakEmpty = 30 * time.Second
	// soakTag marks the sessions of a soak.
	soakTag = "agentcube-bench-soak"
)

// Soak uses sessions for a while, with so many workers as the first concurrency
// says. Each makes, uses, pauses, resumes, forks and deletes its sessions at
// random, and knows what must be in their files and in the memory of their
// processes. When ctx ends, the soak ends early, as if its time were over.
// Step is told of seconds.
func Soak(ctx context.Context, opts Options, length time.Duration) (_ Report, err error) {
	r, err := newRunner(opts)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.prepare(ctx, r.Preloaded); err != nil {
		return Report{}, err
	}
	r.samples = map[string][]float64{}
	s := &soak{runner: r, tag: rand.Text(), report: SoakReport{Workers: r.Concurrency[0]}}
	begin := time.Now()
	busy, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	forkKey, err := client.NewKey()
	if err != nil {
		return Report{}, err
	}
	var wg sync.WaitGroup
	for range s.report.Workers {
		w := &soakWorker{soak: s, forkKey: forkKey}
		wg.Go(func() { w.run(busy, context.WithoutCancel(ctx)) })
	}
	wg.Go(func() { s.tell(busy, begin, length) })
	wg.Wait()
	s.report.Seconds = time.Since(begin).Seconds()
	for _, name := range soakOperations() {
		if samples := r.samples[name]; len(samples) > 0 {
			s.report.Operations = append(s.report.Operations, newResult(name, "ms", s.report.Workers, samples, "", nil))
		}
	}
	s.report.Left, err = s.left(context.WithoutCancel(ctx))
	return Report{Soak: &s.report}, err
}

func soakOperations() []string { return []string{"create", "use", "pause", "resume", "fork", "delete"} }

type soak struct {
	*runner
	tag    string
	report SoakReport // guarded by runner.mu while the workers run
}

// tell reports the seconds that have gone.
func (s *soak) tell(ctx context.Context, begin time.Time, length time.Duration) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.Step(int(time.Since(begin).Seconds()), int(length.Seconds()))
		}
	}
}

// left waits until nothing is left, or too long, and says what it is.
func (s *soak) left(ctx context.Context) (left []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, soakEmpty)
	defer cancel()
	for {
		found, err := s.lookForLeft(ctx)
		switch {
		case err != nil && ctx.Err() != nil && len(left) > 0:
			return left, nil // as they were a moment ago
		case err != nil || len(found) == 0:
			return nil, err
		}
		left = found
		select {
		case <-ctx.Done():
			return left, nil
		case <-time.After(lookEvery):
		}
	}
}

func (s *soak) lookForLeft(ctx context.Context) (left []string, err error) {
	living := client.ListOptions{States: []api.State{api.StatePending, api.StateRunning, api.StatePaused}, Limit: 1000}
	for {
		page, err := s.Client.ListSessions(ctx, living)
		if err != nil {
			return nil, err
		}
		for _, info := range page.Sessions {
			if info.Metadata[soakTag] == s.tag {
				left = append(left, "session "+info.SessionID)
			}
		}
		if living.PageToken = page.NextPageToken; living.PageToken == "" {
			break
		}
	}
	if s.DataDir == "" {
		return left, nil
	}
	// Only what a server of our own has is nobody else's.
	files, err := residue(s.DataDir, s.Standby)
	return append(left, files...), err
}

// soakWorker is one user. It alone knows its sessions.
type soakWorker struct {
	*soak
	forkKey *rsa.PrivateKey
	mine    []*guest
}

// guest is a session and what must be in it.
type guest struct {
	life *life
	word string
	key  *rsa.PrivateKey
}

// run works until ctx ends, and cleans up with the other context.
func (w *soakWorker) run(ctx, after context.Context) {
	for ctx.Err() == nil {
		w.step(ctx, after)
	}
	for len(w.mine) > 0 {
		w.delete(after, 0)
	}
}

// step does one thing at random. It is not cut off half way: what has begun
// may finish, so that nothing is left that nobody knows.
func (w *soakWorker) step(ctx, after context.Context) {
	if len(w.mine) == 0 {
		w.create(ctx, after)
		return
	}
	at := mathrand.IntN(len(w.mine))
	g := w.mine[at]
	switch n := mathrand.IntN(100); {
	case n < 10 && len(w.mine) < soakSessions:
		w.create(ctx, after)
	case n < 20 && len(w.mine) < soakSessions:
		w.fork(ctx, after, g)
	case n < 30:
		w.delete(after, at)
	case n < 50:
		w.change(ctx, after, "pause", at, g.life.s.Pause)
	case n < 60:
		w.change(ctx, after, "resume", at, g.life.s.Resume)
	default:
		w.change(ctx, after, "use", at, g.use)
	}
}

// change does something with a session, and gives it up when that fails.
func (w *soakWorker) change(ctx, after context.Context, name string, at int, operate func(context.Context) error) {
	if !w.do(ctx, name, func() error { return operate(after) }) {
		w.delete(after, at)
	}
}

// create makes a session with a word in a file and a process in its memory.
func (w *soakWorker) create(ctx, after context.Context) {
	w.do(ctx, "create", func() error {
		s, err := w.Client.CreateSession(after, client.CreateOptions{
			Namespace: w.Preloaded.Namespace, Template: w.Preloaded.Name, Key: w.key, TTL: sessionLife,
			Metadata: map[string]string{soakTag: w.tag},
		})
		if err != nil {
			return err
		}
		g := &guest{word: rand.Text(), key: w.key}
		if err = s.WriteFile(after, "word", []byte(g.word)); err == nil {
			g.life, err = startLife(after, s, w.Preload)
		}
		if err != nil {
			return errors.Join(err, remove(after, s))
		}
		w.mine = append(w.mine, g)
		return nil
	})
}

// fork copies a session, which shows what it was, and looks whether the copy is.
func (w *soakWorker) fork(ctx, after context.Context, g *guest) {
	// A copy has another key than what it is a copy of.
	key := w.forkKey
	if g.key == key {
		key = w.key
	}
	w.do(ctx, "fork", func() error {
		forks, err := g.life.s.Fork(after, 1, client.ForkOptions{
			Keys: []*rsa.PrivateKey{key}, TTL: sessionLife, Metadata: map[string]string{soakTag: w.tag},
		})
		if err != nil {
			return err
		}
		made := &guest{life: g.life.in(forks[0]), word: g.word, key: key}
		if err := made.use(after); err != nil {
			return errors.Join(err, remove(after, forks[0]))
		}
		w.mine = append(w.mine, made)
		return nil
	})
}

// use checks what is in the session and changes it.
func (g *guest) use(ctx context.Context) error {
	next := rand.Text()
	res, err := g.life.s.Execute(ctx, client.ExecRequest{Command: []string{"sh", "-c", `cat word; printf %s "$1" > word`, "sh", next}})
	if err != nil {
		return err
	}
	if string(res.Stdout) != g.word {
		return fmt.Errorf("%w: session %s has the word %q, want %q", errState, g.life.s.ID, res.Stdout, g.word)
	}
	g.word = next
	return g.life.check(ctx)
}

func (w *soakWorker) delete(ctx context.Context, at int) {
	g := w.mine[at]
	w.mine = slices.Delete(w.mine, at, at+1)
	w.do(ctx, "delete", func() error { return remove(ctx, g.life.s) })
}

// do measures an operation and judges it; false when it failed. That there was
// no room is no failure.
func (w *soakWorker) do(ctx context.Context, name string, operate func() error) bool {
	begin := time.Now()
	err := operate()
	if err == nil {
		w.record(name, milliseconds(time.Since(begin)))
		return true
	}
	var refused *client.APIError
	if errors.As(err, &refused) && errors.Is(err, client.ErrOverloaded) {
		w.mu.Lock()
		w.report.Refused++
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(max(refused.RetryAfter, lookEvery)):
		}
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, errState) {
		w.report.Wrong++
	} else {
		w.report.Failed++
	}
	if len(w.report.Errors) < soakErrors {
		w.report.Errors = append(w.report.Errors, name+": "+err.Error())
	}
	return false
}
