package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// Server is an AgentCube that is started for a run, with a data folder and
// templates of its own.
type Server struct {
	// URL is where it listens; TokenFile holds its token; DataDir is its data
	// folder. They are set by Start.
	URL, TokenFile, DataDir string

	opts ServerOptions
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended, and err is set
	err  error
	warm int // pools made so far: each has a template of a new name
}

// ServerOptions of a Server. Program is required, and one of Images and Archive.
type ServerOptions struct {
	// Program is the agentcube executable.
	Program string
	// Dir is the folder in which it makes its own; empty means the system's
	// temporary one.
	Dir string
	// Images is an image store to use, or Archive a file to import the image
	// named Image from.
	Images, Archive, Image string
	// Platform is gVisor's.
	Platform string
	// Preload are the modules of the preloaded template.
	Preload []string
}

const (
	// startTimeout bounds the start of a server, the import of its image included.
	startTimeout = 5 * time.Minute
	// stopTimeout bounds its end, with all sessions.
	stopTimeout = 2 * time.Minute
	// lookEvery is how often what is waited for is looked at.
	lookEvery = 20 * time.Millisecond
	// noticeTimeout bounds how long a server takes to notice a new template.
	noticeTimeout = 30 * time.Second
)

const templateNamespace = "bench"

// Plain and Preloaded are its templates without a pool.
func (s *Server) Plain() Template { return Template{templateNamespace, "plain"} }

// Preloaded has the modules imported.
func (s *Server) Preloaded() Template { return Template{templateNamespace, "preloaded"} }

// NewServer returns a server that has not been started.
func NewServer(opts ServerOptions) *Server { return &Server{opts: opts} }

// Start starts it and returns when it can be used. The caller calls Stop, also
// when Start fails.
func (s *Server) Start(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp(s.opts.Dir, "agentcube-bench-"); err != nil {
		return fmt.Errorf("make folder of server: %w", err)
	}
	// The processes of sandboxes, which are not root, pass through.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return fmt.Errorf("make folder of server: %w", err)
	}
	s.DataDir, s.TokenFile = filepath.Join(s.dir, "d"), filepath.Join(s.dir, "token")
	for _, dir := range []string{s.DataDir, s.templates()} {
		if err := os.Mkdir(dir, 0o711); err != nil {
			return fmt.Errorf("make folder of server: %w", err)
		}
	}
	if s.opts.Archive == "" {
		if err := os.Symlink(s.opts.Images, filepath.Join(s.DataDir, "images")); err != nil {
			return fmt.Errorf("share images with server: %w", err)
		}
	}
	// The built-in ones have pools, which would only be in the way.
	all := []Template{s.Plain(), {client.DefaultNamespace, client.DefaultTemplate}, {client.DefaultNamespace, "my-interpreter"}}
	for _, t := range all {
		if err := s.writeTemplate(t, nil, 0); err != nil {
			return err
		}
	}
	if err := s.writeTemplate(s.Preloaded(), s.opts.Preload, 0); err != nil {
		return err
	}
	return s.run(ctx)
}

func (s *Server) templates() string { return filepath.Join(s.dir, "t") }

// run starts the process and waits until it says that it is ready.
func (s *Server) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	args := []string{
		"up", "--output", "json", "--no-progress", "--listen", "127.0.0.1:0", "--log-level", "warn",
		"--data-dir", s.DataDir, "--template-dir", s.templates(), "--token-file", s.TokenFile,
		"--default-image", s.opts.Image, "--platform", s.opts.Platform, "--max-create-rate-per-owner", "0",
	}
	if s.opts.Archive != "" {
		args = append(args, "--image-archive", s.opts.Archive)
	}
	// Files, for a pipe would be held open by every sandbox.
	stdout, err := os.Create(filepath.Join(s.dir, "ready.json"))
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	defer stdout.Close()
	stderr, err := os.Create(s.logFile())
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	defer stderr.Close()
	s.cmd = exec.Command(s.opts.Program, args...) //nolint:noctx // Stop ends it, in an orderly way
	s.cmd.Stdout, s.cmd.Stderr = stdout, stderr
	// An interrupt from the terminal is for this process, which ends the other
	// when it has cleaned up; should it be killed, the other ends, too.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return fmt.Errorf("start server: %w", err)
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = s.cmd.Wait()
	}()
	for tick := time.NewTicker(lookEvery); ; {
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("start server: %w\n%s", errors.Join(s.err, errors.New("it ended")), s.Log())
		case <-ctx.Done():
			return fmt.Errorf("start server: %w\n%s", ctx.Err(), s.Log())
		}
		var ready struct{ URL string }
		raw, err := os.ReadFile(stdout.Name())
		if err == nil && json.Unmarshal(raw, &ready) == nil {
			s.URL = ready.URL
			tick.Stop()
			return nil
		}
	}
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// Log is the end of what the server has logged.
func (s *Server) Log() string {
	const enough = 4 << 10
	raw, err := os.ReadFile(s.logFile())
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(raw[max(0, len(raw)-enough):]))
}

// Stop ends the server with all its sessions and removes its folder.
func (s *Server) Stop() error {
	var err error
	if s.cmd != nil {
		err = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.done:
			err = nil
			if s.err != nil {
				err = fmt.Errorf("server: %w\n%s", s.err, s.Log())
			}
		case <-time.After(stopTimeout):
			err = errors.Join(err, fmt.Errorf("stop server: it goes on; its folder is %s", s.dir), s.cmd.Process.Kill())
			return err
		}
	}
	if s.dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Warm makes a template with a pool of that size, in place of the one before.
func (s *Server) Warm(ctx context.Context, c *client.Client, size int) (Template, error) {
	before := s.warmTemplate()
	if s.warm > 0 {
		if err := os.Remove(s.templateFile(before.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Template{}, fmt.Errorf("remove template: %w", err)
		}
	}
	if size == 0 {
		return Template{}, nil
	}
	s.warm++
	t := s.warmTemplate()
	if err := s.writeTemplate(t, s.opts.Preload, size); err != nil {
		return Template{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for began := time.Now(); ; {
		err := c.PrepareTemplate(ctx, t.Namespace, t.Name, nil)
		if err == nil || !errors.Is(err, client.ErrNotFound) || time.Since(began) > noticeTimeout {
			return t, err
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

func (s *Server) warmTemplate() Template {
	return Template{templateNamespace, "warm" + strconv.Itoa(s.warm)}
}

func (s *Server) templateFile(name string) string { return filepath.Join(s.templates(), name+".yaml") }

// writeTemplate writes a template with the limits of the built-in ones. Its
// environment keeps templates with the same modules from sharing a pool.
func (s *Server) writeTemplate(t Template, preload []string, pool int) error {
	pooled := "no"
	if pool > 0 {
		pooled = "yes"
	}
	text := fmt.Sprintf(`apiVersion: runtime.agentcube.volcano.sh/v1alpha1
kind: CodeInterpreter
metadata: {name: %s, namespace: %s}
spec:
  warmPoolSize: %d
  sessionTimeout: 8h
  maxSessionDuration: 8h
  template:
    image: %q
    environment: [{name: BENCH_POOL, value: "%s"}]
    preload: [%s]
    maxProcesses: 256
    resources: {limits: {cpu: "1", memory: 1Gi, ephemeral-storage: 2Gi}}
`, t.Name, t.Namespace, pool, s.opts.Image, pooled, strings.Join(preload, ", "))
	// Under its name at once as a whole, as the server may look at any moment.
	tmp := filepath.Join(s.dir, "template.tmp")
	err := os.WriteFile(tmp, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(tmp, s.templateFile(t.Name))
	}
	if err != nil {
		return fmt.Errorf("write template: %w", err)
	}
	return nil
}

// residue lists what the server holds of sandboxes, running or paused; pools
// count, too. So many runs as standby says may be processes that wait for the next
// start, and are none of a sandbox.
func residue(dataDir string, standby int) (left []string, err error) {
	for part, spare := range map[string]int{"runs": standby, "sandboxes": 0} {
		entries, err := os.ReadDir(filepath.Join(dataDir, part))
		if err != nil {
			return nil, fmt.Errorf("look for what is left: %w", err)
		}
		if len(entries) <= spare {
			continue
		}
		for _, e := range entries {
			left = append(left, filepath.Join(part, e.Name()))
		}
	}
	return left, nil
}
