package e2e

import (
	"context"
	"crypto/rsa"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// killRounds is how many times the server is killed in each kind of work.
const killRounds = 4

// killWithin is somewhat more than the work takes.
const killWithin = 600 * time.Millisecond

// TestKilledWhileSleeping kills the server at random moments of a pause, a
// resume, a fork, a checkpoint and a creation from one, and looks at what there
// is after the next start: all that was acknowledged, as it was, nothing half
// made, and nothing that belongs to nobody.
func TestKilledWhileSleeping(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.prepare(t, "keeper")
	c := srv.client(t)
	base := srv.census()
	v := newVictim(t, srv, c, 24)
	const asleep, awake = api.StatePaused, api.StateRunning
	for _, w := range []work{
		{"pause", awake, asleep, v.k.s.Pause},
		{"resume", asleep, awake, v.k.s.Resume},
		{"wake by a request", asleep, awake, func(ctx context.Context) error {
			_, err := v.k.s.Execute(ctx, client.ExecRequest{Command: []string{"true"}})
			return err
		}},
		{"checkpoint", awake, awake, v.checkpoint},
		{"checkpoint of a sleeping one", asleep, asleep, v.checkpoint},
		{"fork", awake, awake, v.fork},
		{"create from a checkpoint", awake, awake, v.create},
		{"delete a checkpoint", awake, awake, v.uncheckpoint},
	} {
		t.Run(w.name, func(t *testing.T) {
			for range killRounds {
				if v.round(t, w); t.Failed() {
					t.FailNow()
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	for name := range v.kept {
		if _, err := c.DeleteCheckpoint(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	for _, rec := range living(t, c) {
		if err := c.DeleteSession(t.Context(), rec.SessionID); err != nil {
			t.Error(err)
		}
	}
	c.Close()
	srv.settled(t, base)
	srv.empty(t)
}

// victim is a server that is killed, and what it has acknowledged.
type victim struct {
	srv  *server
	c    *client.Client
	k    *keeper
	rnd  *rand.Rand
	keys []*rsa.PrivateKey // of forks

	made int // checkpoints
	// What was acknowledged in this round: sessions, and, in all rounds, of what
	// there are checkpoints. One that is being made or removed may be there.
	sessions []*keeper
	kept     map[string]keeperState
	maybe    string
	maybeOf  keeperState
}

func newVictim(t *testing.T, srv *server, c *client.Client, mib int) *victim {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	v := &victim{srv: srv, c: c, k: newKeeper(t, c, mib), rnd: rand.New(rand.NewPCG(seed, 0)), kept: map[string]keeperState{}}
	for range 3 {
		key, err := client.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		v.keys = append(v.keys, key)
	}
	return v
}

func (v *victim) checkpoint(ctx context.Context) error {
	v.made++
	v.maybe, v.maybeOf = fmt.Sprintf("c-%d", v.made), v.k.last
	_, err := v.k.s.Checkpoint(ctx, v.maybe)
	if err == nil {
		v.kept[v.maybe] = v.maybeOf
	}
	return err
}

func (v *victim) uncheckpoint(ctx context.Context) error {
	v.maybe = v.anyKept()
	v.maybeOf = v.kept[v.maybe]
	delete(v.kept, v.maybe)
	_, err := v.c.DeleteCheckpoint(ctx, v.maybe)
	if err == nil {
		v.maybe = ""
	}
	return err
}

func (v *victim) anyKept() string {
	for name := range v.kept {
		return name
	}
	return ""
}

func (v *victim) fork(ctx context.Context) error {
	forks, err := v.k.s.Fork(ctx, len(v.keys), client.ForkOptions{Keys: v.keys})
	for _, f := range forks {
		v.sessions = append(v.sessions, &keeper{s: f, secret: v.k.secret, last: v.k.last})
	}
	return err
}

func (v *victim) create(ctx context.Context) error {
	name := v.anyKept()
	s, err := v.c.CreateSession(ctx, client.CreateOptions{Checkpoint: name, Key: v.keys[0]})
	if err == nil {
		v.sessions = append(v.sessions, &keeper{s: s, secret: v.k.secret, last: v.kept[name]})
	}
	return err
}

// work is what the server is killed in, and the state of the session before and
// when it was acknowledged.
type work struct {
	name          string
	before, after api.State
	do            func(ctx context.Context) error
}

// round does the work, kills the server in the middle of it, or soon after, and
// checks what is there when it comes back.
func (v *victim) round(t *testing.T, w work) {
	t.Helper()
	v.k.same(t)
	if len(v.kept) < 2 {
		if err := v.checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.before == api.StatePaused {
		pause(t, v.k.s)
	}
	wantState(t, v.c, v.k.s.ID, w.before)
	v.maybe = ""
	began, done := time.Now(), make(chan error, 1)
	go func() { done <- w.do(context.WithoutCancel(t.Context())) }()
	wait := time.Duration(v.rnd.Int64N(int64(killWithin)))
	time.Sleep(wait)
	v.srv.kill(t)
	err := <-done
	t.Logf("killed after %s; the answer came after %s: %v", wait, time.Since(began), err)
	v.srv.restart(t)
	v.agree(t)
	if err == nil {
		wantState(t, v.c, v.k.s.ID, w.after)
	}
	v.check(t)
}

// check looks at all that was acknowledged.
func (v *victim) check(t *testing.T) {
	t.Helper()
	list, err := v.c.Checkpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]keeperState{}
	for _, c := range list {
		state, told := v.kept[c.Name]
		switch {
		case told:
			found[c.Name] = state
		case c.Name == v.maybe:
			found[c.Name] = v.maybeOf
		default:
			t.Errorf("nobody asked for checkpoint %s", c.Name)
		}
	}
	for name := range v.kept {
		if _, there := found[name]; !there {
			t.Errorf("checkpoint %s was acknowledged, there are %v", name, list)
		}
	}
	v.kept = found
	v.k.same(t)
	for _, k := range v.sessions {
		wantState(t, v.c, k.s.ID, api.StateRunning)
		k.same(t)
	}
	v.sessions = nil
	// Those that are there though nobody was told have nobody's key.
	for _, rec := range living(t, v.c) {
		if rec.SessionID == v.k.s.ID {
			continue
		}
		if err := v.c.DeleteSession(t.Context(), rec.SessionID); err != nil {
			t.Error(err)
		}
	}
	v.agree(t)
}

// agree waits until the machine holds what the sessions and checkpoints need,
// and nothing else.
func (v *victim) agree(t *testing.T) {
	t.Helper()
	var why string
	for deadline := time.Now().Add(patience / 3); ; time.Sleep(20 * time.Millisecond) {
		if why = v.srv.differs(t, v.c); why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s", why)
		}
	}
}

// differs says where the machine is not as the server's records say.
func (s *server) differs(t *testing.T, c *client.Client) string {
	t.Helper()
	var boxes []string
	running := 0
	for _, rec := range living(t, c) {
		boxes = append(boxes, rec.SandboxID)
		switch rec.State {
		case api.StateRunning:
			running++
		case api.StatePaused:
			if !slices.Contains(s.entries("sandboxes/"+rec.SandboxID), "paused") {
				return "the state of a paused session is not on the disk"
			}
		default:
			return "session " + rec.SessionID + " is " + string(rec.State)
		}
	}
	slices.Sort(boxes)
	list, err := c.Checkpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	switch found := s.entries("sandboxes"); {
	case !slices.Equal(found, boxes):
		return fmt.Sprintf("sandboxes are %v, sessions have %v", found, boxes)
	case len(s.entries("runs")) != running:
		return fmt.Sprintf("%d sessions run, runs are %v", running, s.entries("runs"))
	case len(s.entries("snapshots")) != len(list):
		return fmt.Sprintf("snapshots are %v, checkpoints %v", s.entries("snapshots"), list)
	case len(s.counted()) != running:
		return fmt.Sprintf("%d sessions run, there are the processes %v", running, s.counted())
	case strings.Contains(fmt.Sprint(s.entries("prepared")), "partial"):
		return fmt.Sprintf("prepared are %v", s.entries("prepared"))
	}
	for _, box := range boxes {
		for _, name := range s.entries("sandboxes/" + box) {
			if strings.HasPrefix(name, ".") {
				return "half a state is left: " + name
			}
		}
	}
	return ""
}

// living are the sessions that have not ended.
func living(t *testing.T, c *client.Client) []api.Session {
	t.Helper()
	return slices.DeleteFunc(listAll(t, c), func(rec api.Session) bool { return rec.State == api.StateEnded })
}
