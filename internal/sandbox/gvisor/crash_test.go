package gvisor

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

const crashEnv = "AGENTCUBE_TEST_CRASH"

// TestKillNine kills a process that makes and deletes sandboxes, at random
// moments, and opens the driver again each time: sandboxes whose Create was
// acknowledged and whose Delete was not begun answer, and in the end nothing
// is left.
func TestKillNine(t *testing.T) {
	if spec := os.Getenv(crashEnv); spec != "" {
		dir, image, _ := strings.Cut(spec, "|")
		crashLoop(dir, testImage(image))
	}
	dir := dataDir(t)
	image := makeImage(t, dir)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 12 {
		acknowledged := killAfter(t, dir, image, time.Duration(rnd.Int64N(int64(400*time.Millisecond))))
		d := New(Config{DataDir: dir, Images: image, Standby: 2})
		if err := d.Open(t.Context()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for id := range acknowledged {
			health(t, d, id)
		}
		boxes, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			if b.Exit == nil {
				health(t, d, b.ID)
			}
		}
		closeEmpty(t, d)
	}
}

// killAfter runs crashLoop in a process of its own for some time after its
// first acknowledgement, kills it, and returns the sandboxes that must be there.
func killAfter(t *testing.T, dir string, image testImage, after time.Duration) map[string]bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillNine$")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir+"|"+string(image))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	living := map[string]bool{}
	lines := bufio.NewScanner(out)
	var kill *time.Timer
	for lines.Scan() {
		if kill == nil {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
		}
		if id, ok := strings.CutPrefix(lines.Text(), "created "); ok {
			living[id] = true
		}
		if id, ok := strings.CutPrefix(lines.Text(), "deleting "); ok {
			delete(living, id)
		}
	}
	_ = cmd.Wait()
	if kill == nil {
		t.Fatal("the process made no sandbox")
	}
	return living
}

// crashLoop makes and deletes sandboxes until it is killed.
func crashLoop(dir string, image testImage) {
	ctx := context.Background()
	// The sandboxes must not hold the pipe that the parent reads.
	out, stderr, err := DetachStdio(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	d := New(Config{DataDir: dir, Images: image, Standby: 2})
	fail := func(err error) {
		fmt.Fprintln(stderr, "crash loop:", err)
		os.Exit(1)
	}
	if err := d.Open(ctx); err != nil {
		fail(err)
	}
	key := bootstrapKey(dir)
	for worker := range 2 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("s-%d-%d", worker, i)
				if _, err := d.Create(ctx, sandbox.Spec{ID: id, Image: "test", BootstrapKey: key}); err != nil {
					fail(err)
				}
				fmt.Fprintln(out, "created", id)
				if i%2 == 0 {
					continue
				}
				fmt.Fprintln(out, "deleting", id)
				if err := d.Delete(ctx, id); err != nil {
					fail(err)
				}
			}
		}()
	}
	select {}
}
