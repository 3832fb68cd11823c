package e2e

import (
	"context"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestQuickstart: what `make quickstart` runs shows what it promises on a machine
// that has seen no AgentCube, and leaves nothing but its data, token and log.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	addr, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(env.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: dir, data: filepath.Join(dir, "d")}
	home, log := s.path("home"), s.path("log")
	for _, folder := range []string{home, s.path("tmp")} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	examples := filepath.Join(env.root, "sdk", "python", "examples")
	before := filesBelow(t, examples)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s.cmd = exec.CommandContext(ctx, filepath.Join(env.root, "scripts", "quickstart.sh"))
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) } // it stops what it has started
	s.cmd.WaitDelay = patience / 3
	s.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + s.path("tmp"), "ADDR=" + addr, "AGENTCUBE_DATA_DIR=" + s.data,
		"QUICKSTART_AGENTCUBE=" + env.bin, "QUICKSTART_PYTHON=" + env.python, "QUICKSTART_IMAGE=" + env.image, "QUICKSTART_LOG=" + log,
	}
	out, err := s.cmd.CombinedOutput()
	t.Cleanup(func() {
		if err := s.remove(); err != nil { // looks for processes, groups and mounts
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s\nlog of the server:\n%s", err, out, s.log())
	}
	rest := string(out)
	for _, want := range []string{
		"importing the image", "starting AgentCube on http://" + addr,
		"whoami: agent\n", "Pi is approximately 3.1416\n", ",day,visitors\n", "Session started\n", "Session stopped\n",
		"nothing is left running", " ROUTER_URL=http://" + addr,
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("it did not print %q, or too early; it printed\n%s", want, out)
			break
		}
		rest = after
	}
	s.empty(t)
	for folder, want := range map[string][]string{home: {".config/agentcube/token"}, s.path("tmp"): nil, examples: before} {
		if diff := cmp.Diff(want, filesBelow(t, folder)); diff != "" {
			t.Errorf("in %s (-want +got)\n%s", folder, diff)
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("its port is taken: %v", err)
	}
	l.Close()
}

// filesBelow are the files in a folder and the folders in it.
func filesBelow(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}
