package sandboxtest

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

func (s *suite) pause(id string) {
	s.Helper()
	if err := s.d.Pause(s.ctx, id); err != nil {
		s.Fatalf("Pause: %v", err)
	}
}

func (s *suite) resume(id string) {
	s.Helper()
	if err := s.d.Resume(s.ctx, id); err != nil {
		s.Fatalf("Resume: %v", err)
	}
}

// wantPaused checks that a sandbox is paused, by all that tell.
func (s *suite) wantPaused(id string) {
	s.Helper()
	got, err := s.d.Get(s.ctx, id)
	if err != nil || !got.Paused || got.Exit != nil {
		s.Errorf("Get = %+v, %v, want it paused", got, err)
	}
	list, err := s.d.List(s.ctx)
	if err != nil {
		s.Errorf("List: %v", err)
	}
	for _, sb := range list {
		if sb.ID == id && !sb.Paused {
			s.Errorf("List says that %s is not paused", id)
		}
	}
	if c, err := s.d.Dial(s.ctx, id, sandbox.AgentPort); !errors.Is(err, sandbox.ErrPaused) {
		s.Errorf("Dial of a paused sandbox = %v, want ErrPaused", err)
		if err == nil {
			_ = c.Close()
		}
	}
}

// wantRunning checks that a sandbox runs and still is the one it was.
func (s *suite) wantRunning(id, state string) {
	s.Helper()
	got, err := s.d.Get(s.ctx, id)
	if err != nil || got.Paused || got.Exit != nil {
		s.Errorf("Get = %+v, %v, want it running", got, err)
	}
	s.wantServing(id)
	s.wantState(id, sessionKeys()[0], state)
	if status := s.init(id, sessionKeys()[1]); status == http.StatusOK {
		s.Error("the agent took a second session key")
	}
	s.wantState(id, sessionKeys()[0], state)
	s.wantRefused(id, sessionKeys()[1])
}

func (s *suite) pauseKeepsState() {
	id := s.createLocked("one")
	before, err := s.d.Get(s.ctx, id)
	if err != nil {
		s.Fatal(err)
	}
	for _, state := range []string{"one", "two", "three"} {
		s.put(id, sessionKeys()[0], state)
		s.pause(id)
		s.wantPaused(id)
		s.pause(id)
		s.wantPaused(id)
		s.resume(id)
		s.wantRunning(id, state)
		s.resume(id)
		s.wantRunning(id, state)
	}
	after, err := s.d.Get(s.ctx, id)
	if err != nil || !after.CreatedAt.Equal(before.CreatedAt) || after.Isolation != before.Isolation {
		s.Errorf("Get = %+v, %v, want %+v", after, err, before)
	}
	s.remove(id)
	s.wantGone(id)
}

func (s *suite) pauseUnknown() {
	id := s.newID()
	for what, err := range map[string]error{"Pause": s.d.Pause(s.ctx, id), "Resume": s.d.Resume(s.ctx, id)} {
		if !errors.Is(err, sandbox.ErrNotFound) {
			s.Errorf("%s = %v, want ErrNotFound", what, err)
		}
	}
}

func (s *suite) pauseEnded() {
	id := s.create()
	s.kill(id)
	s.awaitExit(id)
	_, checkpointErr := s.d.Checkpoint(s.ctx, id, s.newID())
	for what, err := range map[string]error{
		"Pause": s.d.Pause(s.ctx, id), "Resume": s.d.Resume(s.ctx, id), "Checkpoint": checkpointErr,
	} {
		if !errors.Is(err, sandbox.ErrNotRunning) {
			s.Errorf("%s of an ended sandbox = %v, want ErrNotRunning", what, err)
		}
	}
}

func (s *suite) pauseCuts() {
	id := s.createLocked("kept")
	conn, err := s.d.Dial(s.ctx, id, sandbox.AgentPort)
	if err != nil {
		s.Fatalf("Dial: %v", err)
	}
	defer conn.Close()
	s.pause(id)
	if deadline, ok := s.ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		s.Errorf("Read from a paused sandbox = %d bytes, want an error", n)
	}
	if s.ctx.Err() != nil {
		s.Error("Read from a paused sandbox hangs")
	}
	s.resume(id)
	s.wantRunning(id, "kept")
}

func (s *suite) pauseNoExit() {
	id := s.createLocked("kept")
	s.pause(id)
	s.wantNoExit()
	s.resume(id)
	s.wantNoExit()
	s.kill(id) // an end after a pause is seen
	s.awaitExit(id)
}

func (s *suite) pauseKeepsID() {
	id := s.createLocked("kept")
	s.pause(id)
	if _, err := s.d.Create(s.ctx, s.spec(id)); !errors.Is(err, sandbox.ErrExists) {
		s.Errorf("Create over a paused sandbox = %v, want ErrExists", err)
	}
	s.resume(id)
	s.wantRunning(id, "kept")
}

// patiences are how long a call waits before it is given up.
var patiences = []time.Duration{
	0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
}

// pauseCancelled gives up at many moments of a pause. What is left is a sandbox
// that runs or one that is paused, and the answer is true.
func (s *suite) pauseCancelled() {
	id := s.createLocked("kept")
	for _, patience := range patiences {
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		err := s.d.Pause(ctx, id)
		cancel()
		s.wantEither(id, err, true)
		s.resume(id)
		s.wantRunning(id, "kept")
	}
}

func (s *suite) resumeCancelled() {
	id := s.createLocked("kept")
	for _, patience := range patiences {
		s.pause(id)
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		err := s.d.Resume(ctx, id)
		cancel()
		s.wantEither(id, err, false)
		s.resume(id)
		s.wantRunning(id, "kept")
	}
}

// wantEither checks a sandbox after a Pause or Resume that may have been given
// up: it is in one state or the other, and in the asked one without an error.
func (s *suite) wantEither(id string, err error, paused bool) {
	s.Helper()
	got, getErr := s.d.Get(s.ctx, id)
	switch {
	case getErr != nil || got.Exit != nil:
		s.Errorf("after a call that was given up (%v): Get = %+v, %v", err, got, getErr)
	case err == nil && got.Paused != paused:
		s.Errorf("the call succeeded, but Paused = %t", got.Paused)
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		s.Errorf("a call that was given up = %v, want the context's error", err)
	case got.Paused:
		s.wantPaused(id)
	default:
		s.wantServing(id)
	}
}

func (s *suite) pauseRacesResume() {
	id := s.createLocked("kept")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 3 {
				if err := s.d.Pause(s.ctx, id); err != nil {
					s.Errorf("Pause: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 3 {
				if err := s.d.Resume(s.ctx, id); err != nil {
					s.Errorf("Resume: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s.resume(id)
	s.wantRunning(id, "kept")
}

// pauseRacesDelete deletes at many moments of a pause and of a resume.
func (s *suite) pauseRacesDelete() {
	for i, wait := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond} {
		id := s.createLocked("gone")
		change := s.d.Pause
		if i%2 == 1 {
			s.pause(id)
			change = s.d.Resume
		}
		var wg sync.WaitGroup
		var changeErr, deleteErr error
		wg.Go(func() { changeErr = change(s.ctx, id) })
		wg.Go(func() {
			select {
			case <-time.After(wait):
			case <-s.ctx.Done():
			}
			deleteErr = s.d.Delete(s.ctx, id)
		})
		wg.Wait()
		if deleteErr != nil {
			s.Errorf("Delete during a pause or resume: %v", deleteErr)
		}
		s.Logf("the other call: %v", changeErr)
		s.wantGone(id)
	}
	s.wantNoExit()
}

func (s *suite) deletePaused() {
	id := s.createLocked("gone")
	s.pause(id)
	s.remove(id)
	s.wantGone(id)
	if _, err := s.d.Create(s.ctx, s.spec(id)); err != nil {
		s.Fatalf("Create after Delete of a paused sandbox: %v", err)
	}
	s.lock(id, sessionKeys()[1]) // a new one: it has no key
	s.wantNoExit()
}

func (s *suite) reopenPaused() {
	paused, running := s.createLocked("paused"), s.createLocked("running")
	s.pause(paused)
	s.use(s.c.Reopen(s.T, s.made))
	s.wantPaused(paused)
	s.wantRunning(running, "running")
	s.resume(paused)
	s.wantRunning(paused, "paused")
	s.pause(running)
	s.pause(paused)
	s.use(s.c.Reopen(s.T, s.made))
	s.wantPaused(running)
	s.resume(running)
	s.wantRunning(running, "running")
	s.remove(paused)
	s.wantGone(paused)
	s.wantNoExit()
	s.clear()
}

// clear removes everything, for tests that have reopened the driver: what was
// to be removed at their end has lost its driver by then.
func (s *suite) clear() {
	s.Helper()
	for _, id := range s.ids() {
		s.remove(id)
	}
	for _, name := range s.snapshots() {
		if err := s.d.DeleteSnapshot(s.ctx, name); err != nil {
			s.Errorf("DeleteSnapshot: %v", err)
		}
	}
}
