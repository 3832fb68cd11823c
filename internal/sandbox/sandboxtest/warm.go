package sandboxtest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

func (s *suite) prepare() {
	spec := s.spec("")
	for range 2 {
		err := s.d.Prepare(s.ctx, spec, func(step string) {
			if step == "" {
				s.Error("a step without a word")
			}
		})
		if errors.Is(err, sandbox.ErrUnsupported) {
			s.Log("there is nothing to prepare for this driver")
			break
		}
		if err != nil {
			s.Fatalf("Prepare: %v", err)
		}
	}
	if err := s.d.Prepare(s.ctx, spec, nil); err != nil && !errors.Is(err, sandbox.ErrUnsupported) {
		s.Errorf("Prepare without progress: %v", err)
	}
	if ids := s.ids(); len(ids) > 0 {
		s.Errorf("List after Prepare = %q, want nothing", ids)
	}
	s.wantServing(s.create())
}

func (s *suite) prepareNoImage() {
	spec := s.spec("")
	spec.Image = s.c.MissingImage
	if err := s.d.Prepare(s.ctx, spec, nil); !errors.Is(err, sandbox.ErrNoImage) && !errors.Is(err, sandbox.ErrUnsupported) {
		s.Errorf("Prepare = %v, want ErrNoImage", err)
	}
}

// warm fills a pool, takes from it, and wants it full again. What is in it is
// nobody's: it is not listed, and what is claimed is as good as new.
func (s *suite) warm() {
	spec := s.spec("")
	other := spec
	other.Resources.MemoryBytes *= 2
	s.d.Warm([]sandbox.Pool{{Name: "a", Spec: spec, Size: 1}, {Name: "b", Spec: other, Size: 1}})
	s.wantWaiting(2)
	s.wantSizes(sandbox.PoolSize{Name: "a", Wanted: 1, Ready: 1}, sandbox.PoolSize{Name: "b", Wanted: 1, Ready: 1})
	if ids := s.ids(); len(ids) > 0 {
		s.Errorf("List with full pools = %q, want nothing", ids)
	}
	id := s.newID()
	s.deleteLater(id)
	claim := s.spec(id)
	claim.Labels = map[string]string{"of": id}
	made, err := s.d.Create(s.ctx, claim)
	if err != nil {
		s.Fatalf("Create: %v", err)
	}
	if _, counts := s.d.(sandbox.PoolCounter); counts && made.Start != sandbox.StartPool {
		s.Errorf("Create from a full pool came by %q", made.Start)
	}
	if got, err := s.d.Get(s.ctx, id); err != nil || got.Labels["of"] != id || got.Exit != nil {
		s.Errorf("Get of a claimed sandbox = %+v, %v, want its labels", got, err)
	}
	s.wantServing(id)
	if s.c.Bootstrap != nil {
		s.lock(id, sessionKeys()[0])
		s.put(id, sessionKeys()[0], "mine")
	}
	s.wantWaiting(2)
	if ids := s.ids(); len(ids) != 1 || ids[0] != id {
		s.Errorf("List = %q, want %q", ids, id)
	}
	// More than wait at a time.
	for range 3 {
		s.wantServing(s.create())
	}
	s.remove(id)
	s.wantGone(id)
	s.d.Warm([]sandbox.Pool{{Name: "a", Spec: spec, Size: 2}})
	if err := s.d.Prepare(s.ctx, spec, nil); err != nil && !errors.Is(err, sandbox.ErrUnsupported) {
		s.Errorf("Prepare of what has a pool: %v", err)
	}
	if s.c.Waiting != nil && s.c.Waiting(s.made) < 2 {
		s.Errorf("%d sandboxes wait when Prepare returns, want 2", s.c.Waiting(s.made))
	}
	s.wantWaiting(2)
	s.d.Warm(nil)
	s.wantWaiting(0)
	s.wantNoExit()
}

// wantSizes compares what a driver that counts says of its pools.
func (s *suite) wantSizes(want ...sandbox.PoolSize) {
	s.Helper()
	counter, ok := s.d.(sandbox.PoolCounter)
	if !ok {
		return
	}
	got := counter.PoolSizes()
	slices.SortFunc(got, func(a, b sandbox.PoolSize) int { return strings.Compare(a.Name, b.Name) })
	if !slices.Equal(got, want) {
		s.Errorf("PoolSizes = %+v, want %+v", got, want)
	}
}

// wantWaiting waits until so many sandboxes wait in the pools.
func (s *suite) wantWaiting(want int) {
	s.Helper()
	if s.c.Waiting == nil {
		return
	}
	for s.c.Waiting(s.made) != want {
		select {
		case <-s.ctx.Done():
			s.Fatalf("%d sandboxes wait, want %d", s.c.Waiting(s.made), want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
