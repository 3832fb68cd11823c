package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
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
	rootfs   string
	platform string
	dir      string
}

// container is one stock sandbox whose program has printed something.
type container struct {
	id     string
	cmd    *exec.Cmd
	out    io.Closer
	dir    string
	stderr *bytes.Buffer
}

// firstOutput starts a sandbox with a program that ends by itself, and returns
// the time to its first byte of output.
func (s *stock) firstOutput(ctx context.Context, argv []string) (time.Duration, error) {
	begin := time.Now()
	c, err := s.start(ctx, argv)
	if err != nil {
		return 0, err
	}
	d := time.Since(begin)
	return d, c.wait()
}

// start runs argv in a new sandbox and returns after its first byte of output.
func (s *stock) start(ctx context.Context, argv []string) (*container, error) {
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
	c.cmd = exec.CommandContext(ctx, s.program)
	c.cmd.Args = []string{
		"runsc", "--root", filepath.Join(c.dir, "r"), "--platform", s.platform,
		"--network", "none", "--ignore-cgroups", "run", "--bundle", bundle, c.id,
	}
	c.cmd.Stderr = c.stderr
	// runsc run passes SIGTERM on to the program and cleans up after it.
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 10 * time.Second
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start stock sandbox: %w", err)
	}
	c.out = out
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start stock sandbox: %w", err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		werr := c.wait()
		return nil, fmt.Errorf("start stock sandbox: no output: %w: %s", werr, bytes.TrimSpace(c.stderr.Bytes()))
	}
	return c, nil
}

// wait returns when the sandbox has ended and removes its files.
func (c *container) wait() error {
	err := c.cmd.Wait()
	if rerr := os.RemoveAll(c.dir); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("run stock sandbox: %w", err)
	}
	return nil
}

// kill ends the sandbox, whose program does not end by itself.
func (c *container) kill() {
	_ = c.cmd.Cancel()
	_ = c.wait()
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
