package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// component is a program of the cluster that runs.
type component struct {
	name string
	log  string // path of what it says
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start starts a program from the folder of binaries, which Stop ends, not ctx. It
// is killed when this process ends, and its output goes to a file of its name.
func (c *Cluster) start(ctx context.Context, name string, args ...string) error {
	if err := os.WriteFile(c.logOf(name), nil, 0o644); err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	p, err := c.run(ctx, name, args...)
	if err != nil {
		return err
	}
	c.components = append(c.components, p)
	return nil
}

func (c *Cluster) logOf(name string) string { return filepath.Join(c.logs, name+".log") }

// run starts a program, whose log goes on where it was.
func (c *Cluster) run(ctx context.Context, name string, args ...string) (*component, error) {
	p := &component{name: name, log: c.logOf(name), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	p.cmd = c.command(context.WithoutCancel(ctx), name, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in what it said
		close(p.done)
	}()
	return p, nil
}

// command is a call of one of the binaries. It finds the others, and knows nothing
// of the environment of the tests.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.binaries, name), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + c.binaries + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.dir, "TMPDIR=" + c.dir}
	// A group of its own, as an interrupt is for the tests, which then end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// kill ends the component at once: what it keeps is thrown away anyway.
func (p *component) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// ended is the end of the first component that has ended on its own, if any.
func (c *Cluster) ended() error {
	for _, p := range c.components {
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended: %v\n%s", p.name, p.cmd.ProcessState, p.tail())
		default:
		}
	}
	return nil
}

// tail is the end of the log.
func (p *component) tail() []byte {
	const most = 4 << 10
	f, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-most), io.SeekStart)
	}
	data, _ := io.ReadAll(io.LimitReader(f, most))
	if len(data) == most {
		if _, rest, found := bytes.Cut(data, []byte("\n")); found {
			data = rest
		}
	}
	return data
}
