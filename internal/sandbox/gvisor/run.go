package gvisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/sentry"
)

// run is one sentry process with all that belongs to it on the host: a
// directory, a control group, a line. A sandbox has one while it is not paused;
// one without a sandbox waits in a pool. Runs that no record names are removed
// by the next Open.
type run struct {
	id    string // of the directory and the control group
	dir   string
	frame frame
	link  link
	gone  chan struct{} // closed when the sentry has ended

	removing sync.Mutex // held by the one who removes it

	mu   sync.Mutex
	over bool // it was told to end
	conf *config.Config
	cont *container.Container // nil until it is needed, after an adoption
	proc *process
	at   place
}

// place is how a later process finds a sentry again.
type place struct {
	Run string `json:"run"`
	// PID and StartTime (clock ticks since boot, field 22 of /proc/PID/stat)
	// name the process; BootID is the boot of the machine it belongs to.
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	BootID    string `json:"bootId"`
	// Socket is gVisor's control socket.
	Socket string `json:"socket"`
}

func (d *Driver) runDir(id string) string { return filepath.Join(d.runs, id) }

func stateDir(runDir string) string { return filepath.Join(runDir, "r") }

// socketPath is where gVisor puts the control socket of a run.
func socketPath(runDir string) string {
	return filepath.Join(stateDir(runDir), "runsc-"+containerID+".sock")
}

// newRunID is short, as it is part of the name of a socket.
func newRunID() string {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("gvisor: no random numbers: " + err.Error()) // the runtime ends the process first
	}
	return hex.EncodeToString(b[:])
}

func (d *Driver) emptyRun(id string, f frame) *run {
	r := &run{id: id, dir: d.runDir(id), frame: f, gone: make(chan struct{})}
	r.link.agent, r.link.socket = f.agent(), socketPath(r.dir)
	return r
}

// newRun makes a sentry process that waits to be started or restored, under its
// limits, and returns the line to it. When it fails nothing is left.
func (d *Driver) newRun(ctx context.Context, f frame, host string) (_ *run, _ hostlink.Files, err error) {
	id := newRunID()
	r := d.emptyRun(id, f)
	var ours, theirs hostlink.Files
	defer func() {
		theirs.Close()
		if err != nil {
			clean, done := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
			defer done()
			err = errors.Join(err, ours.Close(), d.remove(clean, r))
		}
	}()
	bundleDir := filepath.Join(r.dir, sentry.BundlePrefix+strconv.FormatInt(f.Resources.MemoryBytes, 10))
	if err := os.MkdirAll(bundleDir, 0o711); err != nil {
		return nil, ours, fmt.Errorf("make sandbox directory: %w", err)
	}
	if err := errors.Join(d.groups.create(id, f.Resources), d.groups.limitCPU(id, f.Resources, false)); err != nil {
		return nil, ours, err
	}
	if r.conf, err = runscConfig(stateDir(r.dir), filepath.Join(r.dir, panicLog), d.cfg.Platform); err != nil {
		return nil, ours, err
	}
	spec, err := writeBundle(bundleDir, ociSpec(bundle{
		frame: f, hostname: host, rootDir: filepath.Join(bundleDir, "rootfs"),
		netns: fmt.Sprintf("/proc/self/fd/%d", d.netns.Fd()),
	}), r.conf)
	if err != nil {
		return nil, ours, err
	}
	if err := ctx.Err(); err != nil {
		return nil, ours, err
	}
	files := map[int]*os.File{}
	if f.agent() {
		if ours, theirs, err = hostlink.NewFiles(); err != nil {
			return nil, ours, err
		}
		for i, file := range theirs {
			files[hostFD+i] = file
		}
	}
	r.cont, err = container.New(r.conf, container.Args{ID: containerID, Spec: spec, BundleDir: bundleDir, PassFiles: files})
	if err != nil {
		return nil, ours, notMade(fmt.Errorf("create gVisor sandbox: %w (%s)", err, r.trace()), CheckMachine)
	}
	if err := d.follow(r); err != nil {
		return nil, ours, errors.Join(err, r.cont.Destroy())
	}
	return r, ours, d.groups.join(id, descendants(r.at.PID))
}

// follow takes hold of the sentry that r.cont has just made and watches it to
// its end.
func (d *Driver) follow(r *run) error {
	pid := r.cont.SandboxPid()
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	proc, err := openProcess(pid, start)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.proc = proc
	r.at = place{Run: r.id, PID: pid, StartTime: start, BootID: d.bootID, Socket: r.cont.Sandbox.GetControlSocketPath()}
	r.mu.Unlock()
	d.wg.Go(func() { d.watch(r, proc) })
	return nil
}

func (d *Driver) watch(r *run, p *process) {
	defer p.close()
	if err := p.wait(); err != nil {
		return // let go of: the driver closes
	}
	r.link.close()
	close(r.gone)
	d.runEnded(r, p.how)
}

// boot starts the first process of the sandbox.
func (r *run) boot() error {
	if err := r.cont.Start(r.conf); err != nil {
		return fmt.Errorf("start gVisor sandbox: %w", err)
	}
	return nil
}

// restore loads the state in a directory. Pages may still be loading when the
// sandbox already runs; their file is open then, and may be removed.
func (r *run) restore(dir string) error {
	if err := r.cont.Restore(r.conf, dir, false, true, nil); err != nil {
		return fmt.Errorf("restore gVisor sandbox: %w", err)
	}
	return nil
}

// container is the handle that gVisor needs, read from disk after an adoption.
func (r *run) container(platform string) (*container.Container, *config.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cont != nil {
		return r.cont, r.conf, nil
	}
	conf, err := runscConfig(stateDir(r.dir), filepath.Join(r.dir, panicLog), platform)
	if err != nil {
		return nil, nil, err
	}
	cont, err := container.Load(conf.RootDir, container.FullID{SandboxID: containerID, ContainerID: containerID}, container.LoadOpts{})
	if err != nil {
		return nil, nil, fmt.Errorf("find gVisor sandbox: %w", err)
	}
	r.cont, r.conf = cont, conf
	return cont, conf, nil
}

// letGo ends the watch on the sentry and the line; the sentry runs on.
func (r *run) letGo() {
	r.link.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc != nil {
		r.proc.close()
	}
}

// unwanted reports whether it was told to end.
func (r *run) unwanted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}

// place is where the run can be found.
func (r *run) place() place {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// remove ends a run and removes all that belongs to it. It can be called
// again, also after it failed.
func (d *Driver) remove(ctx context.Context, r *run) error {
	r.removing.Lock()
	defer r.removing.Unlock()
	r.link.close()
	r.mu.Lock()
	proc := r.proc
	r.over = true
	r.mu.Unlock()
	if proc != nil {
		if err := r.end(ctx, proc); err != nil {
			return err
		}
	}
	// One that could not be made may have a process that is not known.
	if err := killAll(ctx, d.groups.members(r.id)); err != nil {
		return err
	}
	if err := d.groups.remove(ctx, r.id); err != nil {
		return err
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("remove sandbox directory: %w", err)
	}
	return nil
}

// end kills the sentry and waits for its end.
func (r *run) end(ctx context.Context, proc *process) error {
	select {
	case <-r.gone:
		return nil
	default:
	}
	if err := proc.kill(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	select {
	case <-r.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for sandbox process %d to end: %w", proc.pid, ctx.Err())
	}
}

// panicLog is the file in a run's directory that its kernel writes when it
// fails.
const panicLog = "panic.log"

// startLog is the file in which it says why it does not start.
const startLog = "start.log"

// trace is the beginning of what a failed kernel wrote.
func (r *run) trace() string { return strings.TrimSpace(r.head(startLog) + r.head(panicLog)) }

// head is the beginning of a file of a run.
func (r *run) head(name string) string {
	f, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	const enough = 4 << 10
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if err != nil {
		return ""
	}
	return string(text)
}

// why explains the end of a run by what its control group counted, and falls
// back on the reason given.
func (d *Driver) why(runID string, reason sandbox.ExitReason, detail string) (sandbox.ExitReason, string) {
	switch {
	case d.groups.oomKills(runID) > 0:
		return sandbox.ExitOutOfMemory, "the sandbox reached its memory limit and was ended"
	case d.groups.forksRefused(runID) > 0:
		return reason, "the sandbox reached its limit of processes and was ended"
	}
	return reason, detail
}
