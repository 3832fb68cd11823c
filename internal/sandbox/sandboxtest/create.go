package sandboxtest

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

func (s *suite) createServes() {
	before := time.Now()
	id := s.newID()
	s.deleteLater(id)
	made, err := s.d.Create(s.ctx, s.spec(id))
	if err != nil {
		s.Fatalf("Create: %v", err)
	}
	if made.ID != id || made.Exit != nil || made.Isolation == "" {
		s.Errorf("Create = %+v, want the id, no exit, and an isolation", made)
	}
	// The clock of the state may be coarse, but not by more than a second.
	if made.CreatedAt.Before(before.Add(-time.Second)) || made.CreatedAt.After(time.Now().Add(time.Second)) {
		s.Errorf("CreatedAt = %v, want now", made.CreatedAt)
	}
	got, err := s.d.Get(s.ctx, id)
	if err != nil || got.ID != id || got.Exit != nil || !got.CreatedAt.Equal(made.CreatedAt) || got.Isolation != made.Isolation {
		s.Errorf("Get = %+v, %v, want %+v", got, err, made)
	}
	s.wantServing(id)
}

func (s *suite) createKeepsLabels() {
	id := s.newID()
	s.deleteLater(id)
	spec := s.spec(id)
	spec.Labels = map[string]string{"agentcube.volcano.sh/session-id": "x", "odd": "ü \"quoted\"\n"}
	want := maps.Clone(spec.Labels)
	if _, err := s.d.Create(s.ctx, spec); err != nil {
		s.Fatalf("Create: %v", err)
	}
	got, err := s.d.Get(s.ctx, id)
	if err != nil || !maps.Equal(got.Labels, want) {
		s.Errorf("labels = %q, %v, want %q", got.Labels, err, want)
	}
}

func (s *suite) createTwice() {
	id := s.create()
	if _, err := s.d.Create(s.ctx, s.spec(id)); !errors.Is(err, sandbox.ErrExists) {
		s.Errorf("second Create = %v, want ErrExists", err)
	}
	s.wantServing(id) // the first one took no harm
}

func (s *suite) createRefuses() {
	for name, id := range map[string]string{
		"empty": "", "upper case": "T-1", "slash": "a/b", "dots": "..", "underscore": "a_b",
		"long": strings.Repeat("a", 64), "space": "a b", "not ASCII": "é",
	} {
		if _, err := s.d.Create(s.ctx, s.spec(id)); !errors.Is(err, sandbox.ErrInvalidSpec) {
			s.Errorf("Create with an id that is %s = %v, want ErrInvalidSpec", name, err)
		}
	}
	if ids := s.ids(); len(ids) > 0 {
		s.Errorf("List = %q, want nothing", ids)
	}
}

func (s *suite) createNoImage() {
	id := s.newID()
	s.deleteLater(id)
	spec := s.spec(id)
	spec.Image = s.c.MissingImage
	if _, err := s.d.Create(s.ctx, spec); !errors.Is(err, sandbox.ErrNoImage) {
		s.Errorf("Create = %v, want ErrNoImage", err)
	}
	s.wantGone(id)
}

// createCancelled gives up at many moments of a creation. Some creations may
// be faster; those must have made a whole sandbox.
func (s *suite) createCancelled() {
	for _, patience := range []time.Duration{
		0, time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond,
		50 * time.Millisecond, 80 * time.Millisecond, 120 * time.Millisecond,
	} {
		id := s.newID()
		s.deleteLater(id)
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		_, err := s.d.Create(ctx, s.spec(id))
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				s.Errorf("Create given up after %v = %v, want the context's error", patience, err)
			}
			s.wantGone(id)
			// The id is free again.
			if _, err := s.d.Create(s.ctx, s.spec(id)); err != nil {
				s.Errorf("Create after one given up after %v: %v", patience, err)
			}
		}
		s.wantServing(id)
		s.remove(id)
		s.wantGone(id)
	}
}

func (s *suite) createRace() {
	id := s.newID()
	s.deleteLater(id)
	const n = 4
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = s.d.Create(s.ctx, s.spec(id)) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !errors.Is(err, sandbox.ErrExists):
			s.Errorf("Create = %v, want ErrExists", err)
		}
	}
	if made != 1 {
		s.Errorf("%d of %d Creates of one id succeeded, want 1", made, n)
	}
	s.wantServing(id)
}

func (s *suite) createAfterDelete() {
	id := s.create()
	s.remove(id)
	s.wantGone(id)
	if _, err := s.d.Create(s.ctx, s.spec(id)); err != nil {
		s.Fatalf("Create after Delete: %v", err)
	}
	s.wantServing(id)
}

func (s *suite) getUnknown() {
	if _, err := s.d.Get(s.ctx, s.newID()); !errors.Is(err, sandbox.ErrNotFound) {
		s.Errorf("Get = %v, want ErrNotFound", err)
	}
}

func (s *suite) listFindsAll() {
	if ids := s.ids(); len(ids) > 0 {
		s.Fatalf("List of a new driver = %q, want nothing", ids)
	}
	a, b := s.create(), s.create()
	ids := s.ids()
	if len(ids) != 2 || !contains(ids, a) || !contains(ids, b) {
		s.Errorf("List = %q, want %q and %q", ids, a, b)
	}
	s.remove(a)
	if ids := s.ids(); len(ids) != 1 || ids[0] != b {
		s.Errorf("List after a Delete = %q, want %q", ids, b)
	}
}

func contains(ids []string, id string) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}
