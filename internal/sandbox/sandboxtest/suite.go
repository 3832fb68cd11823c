// Package sandboxtest is the suite that every sandbox driver passes: one test
// for each promise of the sandbox.Driver contract. A driver's own test only
// says how to make one.
package sandboxtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Config says how to test one driver.
type Config struct {
	// New returns an open driver whose machine has no sandboxes that it knows
	// of. The test closes it, and removes what is left, through t.Cleanup.
	New func(t *testing.T) sandbox.Driver
	// Reopen closes d, as an orderly end of the process would, and returns an
	// open driver on the same state.
	Reopen func(t *testing.T, d sandbox.Driver) sandbox.Driver
	// Image is one that exists. A sandbox made from it with no Command answers
	// GET /health on sandbox.AgentPort.
	Image string
	// MissingImage is one that does not exist.
	MissingImage string
	// BootstrapKey is the PEM public key for Spec.BootstrapKey; may be empty
	// when the driver needs none.
	BootstrapKey string
	// Bootstrap is the private half of BootstrapKey. Drivers that can pause or
	// fork need it: PicoD is locked to a key and keeps files, by which the suite
	// tells whether a state came through.
	Bootstrap *rsa.PrivateKey
	// Waiting, when set, says how many sandboxes wait ready-made in the driver's
	// pools. Without it, Warm is only called.
	Waiting func(d sandbox.Driver) int
	// Kill makes the first process of a running sandbox end by itself.
	Kill func(ctx context.Context, d sandbox.Driver, id string) error
	// Residue, when set, lists what the machine still holds of a sandbox that
	// is gone: processes, mounts, cgroups, files. It is checked to be empty.
	Residue func(id string) []string
	// Guard bounds each test against hanging; 0 means 2 min.
	Guard time.Duration
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	if c.Guard == 0 {
		c.Guard = 2 * time.Minute
	}
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"CreateServes", (*suite).createServes},
		{"CreateKeepsLabels", (*suite).createKeepsLabels},
		{"CreateTwiceIsErrExists", (*suite).createTwice},
		{"CreateRefusesBadSpecs", (*suite).createRefuses},
		{"CreateWithoutImageLeavesNothing", (*suite).createNoImage},
		{"CreateCancelledLeavesNothing", (*suite).createCancelled},
		{"CreateConcurrentlySameID", (*suite).createRace},
		{"CreateAfterDelete", (*suite).createAfterDelete},
		{"GetUnknown", (*suite).getUnknown},
		{"ListFindsAll", (*suite).listFindsAll},
		{"DeleteIsIdempotent", (*suite).deleteIdempotent},
		{"DeleteConcurrently", (*suite).deleteConcurrently},
		{"DeleteCutsConnections", (*suite).deleteCuts},
		{"DeleteRacesCreate", (*suite).deleteRacesCreate},
		{"DialUnknown", (*suite).dialUnknown},
		{"DialRefused", (*suite).dialRefused},
		{"DialHonoursContext", (*suite).dialContext},
		{"DialConcurrently", (*suite).dialConcurrently},
		{"ExitIsDeliveredOnce", (*suite).exitOnce},
		{"DeleteIsNoExit", (*suite).deleteNoExit},
		{"ReopenFindsRunning", (*suite).reopenRunning},
		{"ReopenDeliversExit", (*suite).reopenExit},
		{"CloseEndsExits", (*suite).closeEndsExits},
		{"CapabilitiesAreKnown", (*suite).capabilities},

		{"PrepareIsIdempotent", (*suite).prepare},
		{"PrepareWithoutImage", (*suite).prepareNoImage},
		{"WarmIsClaimedAndRefilled", (*suite).warm},

		{"PauseKeepsState", (*suite).pauseKeepsState},
		{"PauseUnknown", (*suite).pauseUnknown},
		{"PauseEnded", (*suite).pauseEnded},
		{"PauseCutsConnections", (*suite).pauseCuts},
		{"PauseIsNoExit", (*suite).pauseNoExit},
		{"PauseKeepsID", (*suite).pauseKeepsID},
		{"PauseCancelled", (*suite).pauseCancelled},
		{"ResumeCancelled", (*suite).resumeCancelled},
		{"PauseRacesResume", (*suite).pauseRacesResume},
		{"PauseRacesDelete", (*suite).pauseRacesDelete},
		{"DeletePausedLeavesNothing", (*suite).deletePaused},
		{"ReopenFindsPaused", (*suite).reopenPaused},

		{"CheckpointMakesMany", (*suite).checkpointMakesMany},
		{"CheckpointNames", (*suite).checkpointNames},
		{"CheckpointOfPaused", (*suite).checkpointPaused},
		{"CheckpointCancelled", (*suite).checkpointCancelled},
		{"CheckpointRacesItself", (*suite).checkpointRace},
		{"CheckpointRacesPauseAndDelete", (*suite).checkpointRaces},
		{"CreateWithoutSnapshotLeavesNothing", (*suite).createNoSnapshot},
		{"SnapshotOutlivesItsSandbox", (*suite).snapshotOutlives},
		{"SandboxOutlivesItsSnapshot", (*suite).sandboxOutlives},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.Guard)
			t.Cleanup(cancel)
			s := &suite{T: t, c: c, ctx: ctx}
			s.use(c.New(t))
			if !s.able(test.name) {
				t.Log("this driver cannot do it, and says so")
				return
			}
			test.run(s)
		})
	}
}

// able: the driver says that it can do what a test is about.
func (s *suite) able(test string) bool {
	about := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(test, word) })
	}
	can := s.d.Capabilities()
	_, warms := s.made.(sandbox.Warmer)
	switch {
	case about("Checkpoint", "Snapshot"):
		return can.Fork
	case about("Pause", "Resume"):
		return can.Pause
	case about("Prepare", "Warm"):
		return warms
	}
	return true
}

type suite struct {
	*testing.T
	c    Config
	ctx  context.Context
	made sandbox.Driver // as Config.New made it
	d    sandbox.Full   // the same
}

// use has the rest of the test use a driver.
func (s *suite) use(d sandbox.Driver) { s.made, s.d = d, sandbox.Complete(d) }

// newID returns an id that no other test uses.
func (s *suite) newID() string { return "t-" + strings.ToLower(rand.Text()) }

func (s *suite) spec(id string) sandbox.Spec {
	spec := Spec(s.c.Image, s.c.BootstrapKey)
	spec.ID = id
	return spec
}

// Spec is what the suite makes sandboxes of, without an ID: a driver's test can
// prepare for it.
func Spec(image, bootstrapKey string) sandbox.Spec {
	return sandbox.Spec{
		Image: image, Workspace: "/workspace", BootstrapKey: bootstrapKey,
		Resources: sandbox.Resources{CPUMillis: 1000, MemoryBytes: 512 << 20, DiskBytes: 256 << 20, Processes: 256},
	}
}

// create makes a sandbox that is removed at the end of the test.
func (s *suite) create() string {
	s.Helper()
	id := s.newID()
	s.deleteLater(id)
	if _, err := s.d.Create(s.ctx, s.spec(id)); err != nil {
		s.Fatalf("Create: %v", err)
	}
	return id
}

// deleteLater removes a sandbox when the test is over. What the driver is by
// then may have been reopened.
func (s *suite) deleteLater(id string) {
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.c.Guard)
		defer cancel()
		if err := s.d.Delete(ctx, id); err != nil && !errors.Is(err, sandbox.ErrClosed) {
			s.Errorf("Delete at the end of the test: %v", err)
		}
	})
}

func (s *suite) remove(id string) {
	s.Helper()
	if err := s.d.Delete(s.ctx, id); err != nil {
		s.Fatalf("Delete: %v", err)
	}
}

// health asks the agent in a sandbox whether it is well.
func (s *suite) health(id string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.d.Dial(ctx, id, sandbox.AgentPort)
		},
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://sandbox/health", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var answer struct{ Status, Service string }
	if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusOK || answer.Status != "ok" {
		return fmt.Errorf("health answered %d %q", resp.StatusCode, body)
	}
	return nil
}

func (s *suite) wantServing(id string) {
	s.Helper()
	if err := s.health(id); err != nil {
		s.Errorf("sandbox does not serve: %v", err)
	}
}

// wantGone checks that nothing is left of a sandbox.
func (s *suite) wantGone(id string) {
	s.Helper()
	if _, err := s.d.Get(s.ctx, id); !errors.Is(err, sandbox.ErrNotFound) {
		s.Errorf("Get of what should be gone = %v, want ErrNotFound", err)
	}
	if slices.Contains(s.ids(), id) {
		s.Errorf("List has %s, which should be gone", id)
	}
	if c, err := s.d.Dial(s.ctx, id, sandbox.AgentPort); !errors.Is(err, sandbox.ErrNotFound) {
		s.Errorf("Dial of what should be gone = %v, want ErrNotFound", err)
		if err == nil {
			_ = c.Close()
		}
	}
	if s.c.Residue != nil {
		if left := s.c.Residue(id); len(left) > 0 {
			s.Errorf("left on the machine: %q", left)
		}
	}
}

func (s *suite) ids() []string {
	s.Helper()
	list, err := s.d.List(s.ctx)
	if err != nil {
		s.Fatalf("List: %v", err)
	}
	ids := make([]string, 0, len(list))
	for _, sb := range list {
		ids = append(ids, sb.ID)
	}
	return ids
}

// awaitExit waits for the exit of one sandbox; other exits are not expected.
func (s *suite) awaitExit(id string) sandbox.Exit {
	s.Helper()
	select {
	case e, ok := <-s.d.Exits():
		if !ok {
			s.Fatal("Exits is closed, want an exit")
		}
		if e.ID != id {
			s.Fatalf("exit of %s, want %s", e.ID, id)
		}
		return e
	case <-s.ctx.Done():
		s.Fatalf("no exit of %s was delivered", id)
	}
	return sandbox.Exit{}
}
