package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// stock starts sandboxes by gVisor's own command line, as anybody would who
// has its release and the same root file system.
type stock struct {
	program  string
	sidecar  string // the folder of its kernel as a program of its own, or ""
	rootfs   string
	platform string
	dir      string
}

// container is one stock sandbox whose program has printed something.
type container struct {
	id     string
	cmd    *exec.Cmd
	out    io.ReadCloser
	dir    string
	stderr *bytes.Buffer
}

// firstOutput starts a sandbox with a program that ends by itself, and returns
// the time to its first byte of output.
func (s *stock) firstOutput(ctx context.Context, argv []string) (time.Duration, error) {
	begin := time.Now()
	c, err := s.run(ctx, argv)
	if err != nil {
		return 0, err
	}
	d := time.Since(begin)
	return d, c.wait()
}

// run runs argv in a new sandbox and returns after its first byte of output.
func (s *stock) run(ctx context.Context, argv []string) (*container, error) {
	return s.begin(ctx, argv, "run")
}

// begin makes a sandbox with a verb of gVisor's, and returns after the first
// byte of its output.
func (s *stock) begin(ctx context.Context, argv []string, verb ...string) (*container, error) {
	c := &container{id: "bench-" + strings.ToLower(rand.Text()), stderr: &bytes.Buffer{}}
	c.dir = filepath.Join(s.dir, c.id)
	bundle := filepath.Join(c.dir, "bundle")
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o700); err != nil {
		return nil, fmt.Errorf("make stock bundle: %w", err)
	}
	raw, err := json.Marshal(stockSpec(s.rootfs, filepath.Join(bundle, "rootfs"), argv))
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), raw, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("make stock bundle: %w", err)
	}
	c.cmd = s.command(ctx, c, append(verb, "--bundle", bundle, c.id)...)
	c.cmd.Stderr = c.stderr
	// The command line that waits for a sandbox passes SIGTERM on to its
	// program and cleans up after it.
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 10 * time.Second
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("start stock sandbox: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start stock sandbox: %w", err)
	}
	if _, err := io.ReadFull(c.out, make([]byte, 1)); err != nil {
		err = errors.Join(ctx.Err(), err, c.wait())
		return nil, fmt.Errorf("start stock sandbox: no output: %w: %s", err, bytes.TrimSpace(c.stderr.Bytes()))
	}
	return c, nil
}

// command is gVisor's command line, for the sandboxes of one folder.
func (s *stock) command(ctx context.Context, c *container, verb ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.program)
	cmd.Args = append([]string{
		"runsc", "--root", filepath.Join(c.dir, "r"), "--platform", s.platform,
		"--network", "none", "--ignore-cgroups",
	}, verb...)
	if s.sidecar != "" {
		cmd.Env = append(cmd.Environ(), "GVISOR_SIDECAR_BINARIES_DIR="+s.sidecar)
	}
	return cmd
}

// wait returns when the sandbox has ended and removes its files. Should the
// command line have left processes behind, it ends them.
func (c *container) wait() error {
	err := c.cmd.Wait()
	left, lerr := sentriesOf("/proc", c.id)
	for _, pid := range left {
		lerr = errors.Join(lerr, syscall.Kill(pid, syscall.SIGKILL))
	}
	if err = errors.Join(err, lerr, os.RemoveAll(c.dir)); err != nil {
		return fmt.Errorf("run stock sandbox: %w", err)
	}
	return nil
}

// kill ends the sandbox, whose program does not end by itself.
func (c *container) kill() {
	_ = c.cmd.Cancel()
	_, _ = io.Copy(io.Discard, c.out) // its last words must not block it
	_ = c.wait()
}

// talker is a Python program that has imported modules, and prints without end:
// its first output after a restore shows that it runs.
const talker = `
import os, signal, sys, time
for name in sys.argv[1:]:
    __import__(name)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    print(1, flush=True)
    time.sleep(0.001)
`

// held is a stock sandbox that runs a talker, and is saved and restored.
type held struct {
	s       *stock
	c       *container
	argv    []string
	image   string
	drained chan struct{}
}

// hold starts a sandbox. The caller calls kill.
func (s *stock) hold(ctx context.Context, modules []string) (*held, error) {
	h := &held{s: s, argv: append([]string{"python3", "-c", talker}, modules...), drained: make(chan struct{})}
	var err error
	if h.c, err = s.run(ctx, h.argv); err != nil {
		return nil, err
	}
	go func() {
		defer close(h.drained)
		_, _ = io.Copy(io.Discard, h.c.out)
	}()
	return h, nil
}

// checkpoint saves the sandbox, which goes on, uncompressed as AgentCube does,
// in place of what was saved before.
func (h *held) checkpoint(ctx context.Context) error {
	if h.image != "" {
		os.RemoveAll(h.image)
	}
	h.image = filepath.Join(h.s.dir, "image-"+rand.Text())
	cmd := h.s.command(ctx, h.c, "checkpoint", "--leave-running", "--compression", "none", "--image-path", h.image, h.c.id)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("checkpoint stock sandbox: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// restore returns how long it takes from the command to the first output; what
// was restored is gone again.
func (h *held) restore(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	c, err := h.s.begin(ctx, h.argv, "restore", "--image-path", h.image)
	if err != nil {
		return 0, err
	}
	d := time.Since(begin)
	c.kill()
	return d, nil
}

func (h *held) kill() {
	_ = h.c.cmd.Cancel()
	<-h.drained
	_ = h.c.wait()
}

// stockSpec is the OCI specification of a sandbox with one program.
func stockSpec(rootfs, rootDir string, argv []string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: rootDir},
		Process: &specs.Process{
			Args: argv, Cwd: "/",
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Annotations: map[string]string{
			"dev.gvisor.spec.rootfs.source":  rootfs,
			"dev.gvisor.spec.rootfs.type":    "erofs",
			"dev.gvisor.spec.rootfs.overlay": "memory",
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}
