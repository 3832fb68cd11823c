package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// TestBurst: a hundred sessions are asked for at once where five wait ready.
// Each is had, or refused with a word and a time to come again; afterwards all
// is as it was, the pool full again.
func TestBurst(t *testing.T) {
	t.Parallel()
	const burst, pool = 100, 5
	srv := stoppedServer(t, "--max-sandboxes", "60")
	for _, name := range []string{client.DefaultTemplate, "my-interpreter"} {
		srv.template(t, name, "", small)
	}
	srv.template(t, "pooled", fmt.Sprintf("warmPoolSize: %d", pool), "resources: {limits: {memory: 200Mi, ephemeral-storage: 64Mi}}")
	srv.restart(t)
	srv.prepare(t, "pooled", client.DefaultTemplate)
	srv.awaitRuns(t, pool)
	base := srv.census()
	c := srv.client(t)
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var had []*client.Session
	for i := range burst {
		all.Go(func() {
			s, err := c.CreateSession(t.Context(), client.CreateOptions{Template: "pooled", Key: key})
			var answer *client.APIError
			switch {
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				had = append(had, s)
			case !errors.As(err, &answer) || answer.Status != 429 && answer.Status != 503 || answer.RetryAfter <= 0 || answer.Text == "":
				t.Errorf("session %d of the burst: %v (%+v)", i, err, answer)
			}
		})
	}
	all.Wait()
	t.Logf("%d of %d sessions were had", len(had), burst)
	if len(had) < pool || len(had) > 60 {
		t.Errorf("%d sessions were had, with %d waiting and room for 60", len(had), pool)
	}
	names := map[string]bool{}
	for _, s := range had {
		names[output(t, s, "hostname; cat /etc/machine-id")] = true
	}
	if len(names) != len(had) {
		t.Errorf("%d sessions have %d names", len(had), len(names))
	}
	for _, s := range had {
		all.Go(func() { discard(t, s) })
	}
	all.Wait()
	c.Close()
	srv.awaitRuns(t, pool)
	srv.settled(t, base)
	if got := srv.census().fds; got > base.fds+50 {
		t.Errorf("the server has %d open files, it had %d", got, base.fds)
	}
	if list := living(t, c); len(list) > 0 {
		t.Errorf("sessions are left: %+v", list)
	}
}

// awaitRuns waits until there are n sandboxes.
func (s *server) awaitRuns(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(s.sandboxes()) != n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there are %d sandboxes, want %d", len(s.sandboxes()), n)
		}
	}
}

// TestSleepers: sessions that sleep hold disk, and nothing else of the machine
// or the server; any of them wakes as what it was, and about as fast as if it were
// alone.
func TestSleepers(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.prepare(t, "small")
	c := srv.client(t)
	discard(t, create(t, c, client.CreateOptions{Template: "small"}))
	c.Close()
	base := srv.census()
	threads := srv.threads(t)
	sleepers := make([]*client.Session, env.sleepers)
	slots := make(chan struct{}, 2)
	var all sync.WaitGroup
	for i := range sleepers {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			s, err := createPatiently(t, c, client.CreateOptions{Template: "small", Managed: true})
			if err != nil {
				t.Error(err)
				return
			}
			sleepers[i] = s
			res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"bash", "-c",
				fmt.Sprintf("echo %d > file; exec -a sleeper-%d sleep 987654 >/dev/null 2>&1 & echo $! > pid", i, i)}})
			if err != nil || res.ExitCode != 0 {
				t.Errorf("session %d: %+v, %v", i, res, err)
			}
			if err := s.Pause(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	c.Close()
	srv.wantIdle(t, base, threads)
	// Another server on the same machine has one that sleeps alone. They wake in
	// turns, so that whatever else the machine does slows both.
	lonely := loneSleeper(t)
	var among, alone []time.Duration
	for range min(20, 2*len(sleepers)) {
		i := rand.IntN(len(sleepers))
		s := sleepers[i]
		among, alone = append(among, wakingTime(t, s)), append(alone, wakingTime(t, lonely))
		pause(t, lonely)
		if got, want := output(t, s, "cat file; tr '\\0' ' ' < /proc/$(cat pid)/cmdline"), fmt.Sprintf("%d\nsleeper-%d 987654 ", i, i); got != want {
			t.Errorf("session %d woke as %q, want %q", i, got, want)
		}
		pause(t, s)
	}
	slices.Sort(among)
	slices.Sort(alone)
	middle, limit := among[len(among)/2], 4*alone[len(alone)/2]
	t.Logf("among %d that sleep waking took %s in the middle, %s at most; alone %s, %s",
		len(sleepers), middle, among[len(among)-1], alone[len(alone)/2], alone[len(alone)-1])
	if middle > limit {
		t.Errorf("among %d waking takes %s, more than four times what it takes alone", len(sleepers), middle)
	}
	c.Close()
	srv.wantIdle(t, base, threads)
	// Nothing is lost of any of them, either.
	srv.kill(t)
	srv.restart(t)
	list := living(t, c)
	if len(list) != len(sleepers) {
		t.Errorf("there are %d sessions, want %d", len(list), len(sleepers))
	}
	for _, rec := range list {
		if rec.State != api.StatePaused {
			t.Errorf("after a restart a session is %+v", rec)
		}
	}
	for _, s := range sleepers {
		discard(t, s)
	}
	c.Close()
	srv.settled(t, base)
	srv.empty(t)
}

// loneSleeper is the only session of a server of its own, and sleeps.
func loneSleeper(t *testing.T) *client.Session {
	t.Helper()
	srv := newServer(t)
	srv.prepare(t, "small")
	s := create(t, srv.client(t), client.CreateOptions{Template: "small", Managed: true})
	output(t, s, "true")
	pause(t, s)
	return s
}

// wakingTime is how long the resume of a session takes.
func wakingTime(t *testing.T, s *client.Session) time.Duration {
	t.Helper()
	began := time.Now()
	if err := s.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// wantIdle checks that sessions that sleep have nothing but files.
func (s *server) wantIdle(t *testing.T, base census, threads int) {
	t.Helper()
	var got census
	for deadline := time.Now().Add(patience / 3); ; time.Sleep(50 * time.Millisecond) {
		got = s.census()
		if got.processes == base.processes && got.cgroups == base.cgroups && got.mounts == base.mounts || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("asleep: %v", got)
	if got.processes != base.processes || got.cgroups != base.cgroups || got.mounts != base.mounts || len(s.entries("runs")) > 0 {
		t.Errorf("asleep: %v, %d runs; with nobody: %v", got, len(s.entries("runs")), base)
	}
	// Some open files wait for the garbage collector, some threads for work.
	if got.fds > base.fds+20 {
		t.Errorf("the server has %d open files, it had %d", got.fds, base.fds)
	}
	if n := s.threads(t); n > threads+30 {
		t.Errorf("the server has %d threads, it had %d", n, threads)
	}
}
