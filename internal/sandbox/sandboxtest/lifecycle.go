package sandboxtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

func (s *suite) deleteIdempotent() {
	if err := s.d.Delete(s.ctx, s.newID()); err != nil {
		s.Errorf("Delete of what never was: %v", err)
	}
	id := s.create()
	s.remove(id)
	s.wantGone(id)
	s.remove(id)
}

func (s *suite) deleteConcurrently() {
	id := s.create()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.d.Delete(s.ctx, id); err != nil {
				s.Errorf("Delete: %v", err)
			}
		})
	}
	wg.Wait()
	s.wantGone(id)
}

func (s *suite) deleteCuts() {
	id := s.create()
	conn, err := s.d.Dial(s.ctx, id, sandbox.AgentPort)
	if err != nil {
		s.Fatalf("Dial: %v", err)
	}
	defer conn.Close()
	s.remove(id)
	if deadline, ok := s.ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		s.Errorf("Read from a deleted sandbox = %d bytes, want an error", n)
	}
	if s.ctx.Err() != nil {
		s.Error("Read from a deleted sandbox hangs")
	}
}

// deleteRacesCreate deletes at many moments of a creation. Either may win, but
// what Create says must be true until the next Delete, and that one ends it.
func (s *suite) deleteRacesCreate() {
	for _, wait := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 40 * time.Millisecond, 90 * time.Millisecond} {
		id := s.newID()
		s.deleteLater(id)
		var wg sync.WaitGroup
		var createErr, deleteErr error
		wg.Go(func() { _, createErr = s.d.Create(s.ctx, s.spec(id)) })
		wg.Go(func() {
			select {
			case <-time.After(wait):
			case <-s.ctx.Done():
			}
			deleteErr = s.d.Delete(s.ctx, id)
		})
		wg.Wait()
		if deleteErr != nil {
			s.Errorf("Delete during Create: %v", deleteErr)
		}
		switch _, err := s.d.Get(s.ctx, id); {
		case err == nil && createErr != nil:
			s.Errorf("Create failed (%v), but the sandbox is there", createErr)
		case err == nil:
			s.wantServing(id)
		case !errors.Is(err, sandbox.ErrNotFound):
			s.Errorf("Get: %v", err)
		}
		s.remove(id)
		s.wantGone(id)
	}
}

func (s *suite) dialUnknown() {
	if _, err := s.d.Dial(s.ctx, s.newID(), sandbox.AgentPort); !errors.Is(err, sandbox.ErrNotFound) {
		s.Errorf("Dial = %v, want ErrNotFound", err)
	}
}

func (s *suite) dialRefused() {
	const nobody = 9 // discard: nothing of ours listens there
	id := s.create()
	if c, err := s.d.Dial(s.ctx, id, nobody); !errors.Is(err, sandbox.ErrRefused) {
		s.Errorf("Dial of a port where nothing listens = %v, want ErrRefused", err)
		if err == nil {
			_ = c.Close()
		}
	}
	s.wantServing(id)
}

func (s *suite) dialContext() {
	id := s.create()
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if c, err := s.d.Dial(ctx, id, sandbox.AgentPort); err == nil {
		_ = c.Close()
		s.Error("Dial with a context that has ended succeeded")
	}
	s.wantServing(id)
}

func (s *suite) dialConcurrently() {
	id := s.create()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				if err := s.health(id); err != nil {
					s.Errorf("health: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func (s *suite) exitOnce() {
	id := s.create()
	s.kill(id)
	e := s.awaitExit(id)
	if e.Reason != sandbox.ExitStopped && e.Reason != sandbox.ExitOutOfMemory && e.Reason != sandbox.ExitLost {
		s.Errorf("reason = %q, want one of the known ones", e.Reason)
	}
	if e.At.IsZero() {
		s.Error("the exit has no time")
	}
	got, err := s.d.Get(s.ctx, id)
	if err != nil || got.Exit == nil {
		s.Errorf("Get of an ended sandbox = %+v, %v, want its exit", got, err)
	}
	if _, err := s.d.Dial(s.ctx, id, sandbox.AgentPort); !errors.Is(err, sandbox.ErrNotRunning) {
		s.Errorf("Dial of an ended sandbox = %v, want ErrNotRunning", err)
	}
	if _, err := s.d.Create(s.ctx, s.spec(id)); !errors.Is(err, sandbox.ErrExists) {
		s.Errorf("Create over an ended sandbox = %v, want ErrExists", err)
	}
	s.remove(id)
	s.wantGone(id)
	s.wantNoExit()
}

func (s *suite) deleteNoExit() {
	id := s.create()
	s.remove(id)
	s.wantNoExit()
}

// wantNoExit checks that no exit waits: the exit of another sandbox, which
// comes after, is the next one.
func (s *suite) wantNoExit() {
	s.Helper()
	marker := s.create()
	s.kill(marker)
	s.awaitExit(marker)
}

func (s *suite) kill(id string) {
	s.Helper()
	if err := s.c.Kill(s.ctx, s.made, id); err != nil {
		s.Fatalf("Kill: %v", err)
	}
}

func (s *suite) reopenRunning() {
	id := s.create()
	before, err := s.d.Get(s.ctx, id)
	if err != nil {
		s.Fatalf("Get: %v", err)
	}
	s.use(s.c.Reopen(s.T, s.made))
	after, err := s.d.Get(s.ctx, id)
	if err != nil || after.Exit != nil || !after.CreatedAt.Equal(before.CreatedAt) || after.Isolation != before.Isolation {
		s.Errorf("Get after reopening = %+v, %v, want %+v", after, err, before)
	}
	if ids := s.ids(); len(ids) != 1 || ids[0] != id {
		s.Errorf("List after reopening = %q, want %q", ids, id)
	}
	s.wantServing(id)
	if _, err := s.d.Create(s.ctx, s.spec(id)); !errors.Is(err, sandbox.ErrExists) {
		s.Errorf("Create after reopening = %v, want ErrExists", err)
	}
	s.kill(id) // its end is seen, though this driver did not make it
	s.awaitExit(id)
	s.remove(id)
	s.wantGone(id)
}

// reopenExit ends a sandbox and reopens the driver before anybody has read the
// exit.
func (s *suite) reopenExit() {
	id := s.create()
	s.kill(id)
	s.use(s.c.Reopen(s.T, s.made))
	s.awaitExit(id)
	got, err := s.d.Get(s.ctx, id)
	if err != nil || got.Exit == nil {
		s.Errorf("Get = %+v, %v, want its exit", got, err)
	}
	s.remove(id)
	s.wantGone(id)
}

func (s *suite) closeEndsExits() {
	exits := s.d.Exits()
	s.use(s.c.Reopen(s.T, s.made))
	select {
	case e, ok := <-exits:
		if ok {
			s.Errorf("exit %+v from a closed driver, want a closed channel", e)
		}
	case <-s.ctx.Done():
		s.Error("Exits of a closed driver is open")
	}
}

func (s *suite) capabilities() {
	c := s.d.Capabilities()
	if c.Driver == "" || c.Isolation == "" {
		s.Errorf("Capabilities = %+v, want a driver and an isolation", c)
	}
	for _, l := range c.Limits {
		if l.Name == "" || l.How == "" {
			s.Errorf("limit %+v, want a name and how it is held", l)
		}
	}
}
