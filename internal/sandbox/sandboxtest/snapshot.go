package sandboxtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// checkpoint makes a snapshot that is removed at the end of the test.
func (s *suite) checkpoint(id string) string {
	s.Helper()
	name := s.newID()
	s.deleteSnapshotLater(name)
	if _, err := s.d.Checkpoint(s.ctx, id, name); err != nil {
		s.Fatalf("Checkpoint: %v", err)
	}
	return name
}

func (s *suite) deleteSnapshotLater(name string) {
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.c.Guard)
		defer cancel()
		if err := s.d.DeleteSnapshot(ctx, name); err != nil && !errors.Is(err, sandbox.ErrClosed) {
			s.Errorf("DeleteSnapshot at the end of the test: %v", err)
		}
	})
}

// fromSnapshot is the spec of a sandbox that starts from a snapshot: with what
// is its own, and nothing of what the snapshot says.
func (s *suite) fromSnapshot(id, name string) sandbox.Spec {
	return sandbox.Spec{ID: id, Snapshot: name, BootstrapKey: s.c.BootstrapKey, Labels: map[string]string{"of": id}}
}

func (s *suite) createFrom(name string) string {
	s.Helper()
	id := s.newID()
	s.deleteLater(id)
	if _, err := s.d.Create(s.ctx, s.fromSnapshot(id, name)); err != nil {
		s.Fatalf("Create from a snapshot: %v", err)
	}
	return id
}

func (s *suite) snapshots() []string {
	s.Helper()
	list, err := s.d.Snapshots(s.ctx)
	if err != nil {
		s.Fatalf("Snapshots: %v", err)
	}
	var names []string
	for _, snapshot := range list {
		names = append(names, snapshot.Name)
	}
	return names
}

func (s *suite) checkpointMakesMany() {
	mine, other := sessionKeys()[0], sessionKeys()[1]
	parent := s.createLocked("as it was")
	name := s.checkpoint(parent)
	s.wantRunning(parent, "as it was")
	s.put(parent, mine, "parent")
	children := []string{s.createFrom(name), s.createFrom(name)}
	for _, id := range children {
		got, err := s.d.Get(s.ctx, id)
		if err != nil || got.Paused || got.Exit != nil || got.Labels["of"] != id {
			s.Errorf("Get = %+v, %v, want it running with its own labels", got, err)
		}
		s.wantRefused(id, mine) // its parent's key is not its own
		s.lock(id, other)
		s.wantRefused(id, mine)
		s.wantState(id, other, "as it was")
	}
	s.put(children[0], other, "child")
	s.wantState(children[1], other, "as it was")
	s.wantRunning(parent, "parent")

	// What was made from a snapshot can be paused and copied as any other.
	s.pause(children[0])
	s.wantPaused(children[0])
	s.resume(children[0])
	s.wantState(children[0], other, "child")
	grandchild := s.createFrom(s.checkpoint(children[0]))
	s.lock(grandchild, mine)
	s.wantState(grandchild, mine, "child")
	s.remove(parent)
	s.wantGone(parent)
	s.wantState(children[1], other, "as it was")
	s.wantNoExit()
}

func (s *suite) checkpointNames() {
	id := s.createLocked("kept")
	for what, name := range map[string]string{
		"empty": "", "upper case": "A", "slash": "a/b", "dots": "..", "long": strings.Repeat("a", 64), "space": "a b",
	} {
		if _, err := s.d.Checkpoint(s.ctx, id, name); !errors.Is(err, sandbox.ErrInvalidSpec) {
			s.Errorf("Checkpoint with a name that is %s = %v, want ErrInvalidSpec", what, err)
		}
	}
	if _, err := s.d.Checkpoint(s.ctx, s.newID(), s.newID()); !errors.Is(err, sandbox.ErrNotFound) {
		s.Errorf("Checkpoint of no sandbox = %v, want ErrNotFound", err)
	}
	if names := s.snapshots(); len(names) > 0 {
		s.Errorf("Snapshots = %q, want none", names)
	}
	before := time.Now()
	name := s.checkpoint(id)
	list, err := s.d.Snapshots(s.ctx)
	if err != nil || len(list) != 1 {
		s.Fatalf("Snapshots = %+v, %v, want one", list, err)
	}
	if got := list[0]; got.Name != name || got.SizeBytes <= 0 || got.Resources != s.spec(id).Resources ||
		got.CreatedAt.Before(before.Add(-time.Second)) || got.CreatedAt.After(time.Now().Add(time.Second)) {
		s.Errorf("Snapshots has %+v, want %s made now, with a size and %+v", got, name, s.spec(id).Resources)
	}
	if _, err := s.d.Checkpoint(s.ctx, id, name); !errors.Is(err, sandbox.ErrExists) {
		s.Errorf("Checkpoint with a name that is taken = %v, want ErrExists", err)
	}
	s.wantRunning(id, "kept")
	for range 2 { // the second time there is none
		if err := s.d.DeleteSnapshot(s.ctx, name); err != nil {
			s.Errorf("DeleteSnapshot: %v", err)
		}
	}
	if names := s.snapshots(); len(names) > 0 {
		s.Errorf("Snapshots = %q, want none", names)
	}
	if _, err := s.d.Checkpoint(s.ctx, id, name); err != nil {
		s.Errorf("Checkpoint with a name that is free again: %v", err)
	}
}

func (s *suite) checkpointPaused() {
	id := s.createLocked("kept")
	s.pause(id)
	name := s.checkpoint(id)
	s.wantPaused(id)
	child := s.createFrom(name)
	s.lock(child, sessionKeys()[1])
	s.wantState(child, sessionKeys()[1], "kept")
	s.put(child, sessionKeys()[1], "changed")
	s.resume(id)
	s.wantRunning(id, "kept")
}

// checkpointCancelled gives up at many moments. Either there is a whole snapshot
// or none; the sandbox goes on.
func (s *suite) checkpointCancelled() {
	id := s.createLocked("kept")
	for _, patience := range patiences {
		name := s.newID()
		s.deleteSnapshotLater(name)
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		_, err := s.d.Checkpoint(ctx, id, name)
		cancel()
		there := slices.Contains(s.snapshots(), name)
		if there != (err == nil) {
			s.Errorf("Checkpoint given up after %v = %v, but the snapshot is there: %t", patience, err, there)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.Errorf("Checkpoint given up after %v = %v, want the context's error", patience, err)
		}
		s.wantRunning(id, "kept")
		if there {
			child := s.createFrom(name)
			s.lock(child, sessionKeys()[1])
			s.wantState(child, sessionKeys()[1], "kept")
			s.remove(child)
		}
	}
}

func (s *suite) checkpointRace() {
	id := s.createLocked("kept")
	name := s.newID()
	s.deleteSnapshotLater(name)
	errs := make([]error, 3)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.d.Checkpoint(s.ctx, id, name) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !errors.Is(err, sandbox.ErrExists):
			s.Errorf("Checkpoint = %v, want ErrExists", err)
		}
	}
	if made != 1 {
		s.Errorf("%d Checkpoints of one name succeeded, want 1", made)
	}
	s.wantRunning(id, "kept")
}

// checkpointRaces copies a sandbox while it is paused, resumed and, in the end,
// deleted.
func (s *suite) checkpointRaces() {
	id := s.createLocked("kept")
	var wg sync.WaitGroup
	for range 2 {
		name := s.newID()
		s.deleteSnapshotLater(name)
		wg.Go(func() {
			if _, err := s.d.Checkpoint(s.ctx, id, name); err != nil {
				s.Errorf("Checkpoint: %v", err)
			}
		})
	}
	wg.Go(func() {
		for range 2 {
			if err := errors.Join(s.d.Pause(s.ctx, id), s.d.Resume(s.ctx, id)); err != nil {
				s.Errorf("Pause and Resume: %v", err)
			}
		}
	})
	wg.Wait()
	s.wantRunning(id, "kept")

	name := s.newID()
	s.deleteSnapshotLater(name)
	var err error
	wg.Go(func() { _, err = s.d.Checkpoint(s.ctx, id, name) })
	s.remove(id)
	wg.Wait()
	s.wantGone(id)
	if there := slices.Contains(s.snapshots(), name); there != (err == nil) {
		s.Errorf("Checkpoint during Delete = %v, but the snapshot is there: %t", err, there)
	}
}

func (s *suite) createNoSnapshot() {
	id := s.newID()
	s.deleteLater(id)
	if _, err := s.d.Create(s.ctx, s.fromSnapshot(id, "missing")); !errors.Is(err, sandbox.ErrNoSnapshot) {
		s.Errorf("Create = %v, want ErrNoSnapshot", err)
	}
	s.wantGone(id)
}

func (s *suite) snapshotOutlives() {
	parent := s.createLocked("kept")
	name := s.checkpoint(parent)
	s.remove(parent)
	s.wantGone(parent)
	s.use(s.c.Reopen(s.T, s.made))
	if names := s.snapshots(); !slices.Equal(names, []string{name}) {
		s.Errorf("Snapshots after reopening = %q, want %q", names, name)
	}
	child := s.createFrom(name)
	s.lock(child, sessionKeys()[1])
	s.wantState(child, sessionKeys()[1], "kept")
	s.clear()
}

func (s *suite) sandboxOutlives() {
	parent := s.createLocked("kept")
	name := s.checkpoint(parent)
	child := s.createFrom(name)
	s.lock(child, sessionKeys()[1])
	if err := s.d.DeleteSnapshot(s.ctx, name); err != nil {
		s.Fatalf("DeleteSnapshot: %v", err)
	}
	s.wantState(child, sessionKeys()[1], "kept")
	s.pause(child)
	s.use(s.c.Reopen(s.T, s.made))
	s.resume(child)
	s.wantState(child, sessionKeys()[1], "kept")
	s.remove(child)
	s.wantGone(child)
	s.wantRunning(parent, "kept")
	s.clear()
}
