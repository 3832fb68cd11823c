package gvisor

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// TestKillNineAsleep is TestKillNine for pauses, resumes and snapshots: what
// was acknowledged is as it was, and what was not is there in one of two ways.
func TestKillNineAsleep(t *testing.T) {
	if spec := os.Getenv(crashEnv); spec != "" {
		dir, image, _ := strings.Cut(spec, "|")
		sleepLoop(dir, testImage(image))
	}
	dir := dataDir(t)
	image := makeImage(t, dir)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 12 {
		said := linesUntilKilled(t, dir, image, time.Duration(rnd.Int64N(int64(800*time.Millisecond))))
		d := openDriver(t, dir, image)
		checkAcknowledged(t, d, said)
		checkSnapshotsWhole(t, d)
		closeEmpty(t, d)
		if t.Failed() {
			t.Fatalf("round %d, after %q", round, said)
		}
	}
}

// linesUntilKilled runs sleepLoop in a process of its own for some time after it
// has made a sandbox, and returns what it said.
func linesUntilKilled(t *testing.T, dir string, image testImage, after time.Duration) (said []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillNineAsleep$")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir+"|"+string(image))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if len(said) == 0 {
			kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
		}
		said = append(said, lines.Text())
	}
	_ = cmd.Wait()
	if len(said) == 0 {
		t.Fatal("the process made no sandbox")
	}
	return said
}

// checkAcknowledged looks at the sandboxes and snapshots that were spoken of.
func checkAcknowledged(t *testing.T, d *Driver, said []string) {
	t.Helper()
	state := map[string]string{} // the last word about each
	for _, line := range said {
		word, name, _ := strings.Cut(line, " ")
		state[name] = word
	}
	for name, word := range state {
		if snapshot, ok := strings.CutPrefix(name, "snapshot-"); ok {
			checkSnapshot(t, d, snapshot, word)
			continue
		}
		sb, err := d.Get(t.Context(), name)
		if err != nil || sb.Exit != nil {
			t.Errorf("%s, last %s: %+v, %v", name, word, sb, err)
			continue
		}
		if word == "paused" && !sb.Paused || (word == "resumed" || word == "created") && sb.Paused {
			t.Errorf("%s, last %s: %+v", name, word, sb)
		}
		if err := d.Resume(t.Context(), name); err != nil {
			t.Errorf("%s, last %s: %v", name, word, err)
			continue
		}
		health(t, d, name)
	}
}

// checkSnapshot makes a sandbox from a snapshot that was acknowledged.
func checkSnapshot(t *testing.T, d *Driver, name, word string) {
	t.Helper()
	if word != "took" {
		return
	}
	spec := testSpec(t, "from-"+name)
	spec.Snapshot = name
	if _, err := d.Create(t.Context(), spec); err != nil {
		t.Errorf("a sandbox from %s: %v", name, err)
		return
	}
	health(t, d, spec.ID)
}

// checkSnapshotsWhole checks what nobody was told of, too, and removes all.
func checkSnapshotsWhole(t *testing.T, d *Driver) {
	t.Helper()
	list, err := d.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if _, err := d.openSnapshot(s.Name); err != nil {
			t.Error(err)
		}
		if err := d.DeleteSnapshot(t.Context(), s.Name); err != nil {
			t.Error(err)
		}
	}
	for _, pattern := range []string{"sandboxes/*/.*", "snapshots/*", "prepared/.*"} {
		var left []string
		for range 100 { // some are removed in the background
			if left, _ = filepath.Glob(filepath.Join(d.cfg.DataDir, pattern)); len(left) == 0 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// sleepLoop pauses, resumes and copies two sandboxes until it is killed.
func sleepLoop(dir string, image testImage) {
	ctx := context.Background()
	// The sandboxes must not hold the pipe that the parent reads.
	out, stderr, err := DetachStdio(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	d := New(Config{DataDir: dir, Images: image, Standby: 2})
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(stderr, "sleep loop:", err)
			os.Exit(1)
		}
	}
	must(d.Open(ctx))
	key := bootstrapKey(dir)
	for worker := range 2 {
		go func() {
			id := fmt.Sprintf("s-%d", worker)
			_, err := d.Create(ctx, sandbox.Spec{ID: id, Image: "test", BootstrapKey: key})
			must(err)
			fmt.Fprintln(out, "created", id)
			for i := 0; ; i++ {
				name := fmt.Sprintf("c-%d-%d", worker, i)
				copied := func() {
					_, err := d.Checkpoint(ctx, id, name)
					must(err)
					fmt.Fprintln(out, "took", "snapshot-"+name)
				}
				if i%2 == 0 {
					copied()
				}
				fmt.Fprintln(out, "pausing", id)
				must(d.Pause(ctx, id))
				fmt.Fprintln(out, "paused", id)
				if i%2 == 1 {
					copied()
				}
				fmt.Fprintln(out, "resuming", id)
				must(d.Resume(ctx, id))
				fmt.Fprintln(out, "resumed", id)
				fmt.Fprintln(out, "removing", "snapshot-"+name)
				must(d.DeleteSnapshot(ctx, name))
			}
		}()
	}
	select {}
}
