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
	p := &component{name: name, log: filepath.Join(c.logs, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer out.Close()
	p.cmd = c.command(context.WithoutCancel(ctx), name, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in what it said
		close(p.done)
	}()
	c.components = append(c.components, p)
	return nil
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
