package gvisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	gvisorlog "gvisor.dev/gvisor/pkg/log"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/agent"
)

// Isolation is what this driver's sandboxes report.
const Isolation = "gvisor"

// Driver implements sandbox.Driver.
type Driver struct {
	cfg    Config
	dir    string // sandboxes/: records, and the state of what is paused
	runs   string // runs/: what belongs to a process
	snaps  string // snapshots/
	bootID string
	engine string

	lock      *os.File
	netns     *os.File
	groups    *cgroups
	agent     string // EROFS image of PicoD
	templates *templates
	pools     *pools
	stock     *stock
	sums      *sums

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	exits  chan sandbox.Exit
	wg     sync.WaitGroup

	mu      sync.Mutex
	open    bool
	closed  bool
	boxes   map[string]*box
	serving map[*run]*box
	taking  map[string]bool // names of snapshots that are being made

	room diskRoom
}

var _ sandbox.Full = (*Driver)(nil)

// New makes a driver; Open starts it.
func New(cfg Config) *Driver {
	if cfg.Platform == "" {
		cfg.Platform = "systrap"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &Driver{
		cfg: cfg, dir: filepath.Join(cfg.DataDir, "sandboxes"), runs: filepath.Join(cfg.DataDir, "runs"),
		snaps: filepath.Join(cfg.DataDir, "snapshots"),
		ctx:   ctx, cancel: cancel,
		exits: make(chan sandbox.Exit), boxes: map[string]*box{}, serving: map[*run]*box{}, taking: map[string]bool{},
	}
	d.templates = &templates{d: d, dir: filepath.Join(cfg.DataDir, "prepared"), byKey: map[string]*templateSnapshot{}}
	d.pools, d.stock, d.sums = newPools(d), newStock(d), &sums{seen: map[fileID]fileState{}}
	return d
}

// Open takes the data directory, adopts the sandboxes that live there and
// removes what a killed process left half made. Not more than one driver can
// have the directory open.
func (d *Driver) Open(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the gVisor driver needs root: it makes namespaces and control groups")
	}
	if longest := len(socketPath(d.runDir(newRunID()))); longest >= unix.SizeofSockaddrUnix-2 {
		return fmt.Errorf("data directory %q: its name is too long for a socket below it: choose a shorter one", d.cfg.DataDir)
	}
	for _, dir := range []string{d.dir, d.runs, d.snaps, d.templates.dir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	if err := d.takeLock(ctx); err != nil {
		return err
	}
	// gVisor's packages log through a global of their own. What they say is
	// for those who debug gVisor.
	gvisorlog.SetTarget(&gvisorlog.GoogleEmitter{Writer: &gvisorlog.Writer{Next: io.Discard}})
	d.bootID, d.engine = bootID(), engineName(d.cfg.Platform)
	sum := sha256.Sum256([]byte(d.dir))
	d.groups = findCgroups(thisHost(), "agentcube-"+hex.EncodeToString(sum[:4]), d.cfg.MemoryBudget)
	if err := d.acquire(ctx); err != nil {
		d.groups.removeParent()
		d.releaseLock()
		return err
	}
	d.mu.Lock()
	d.open = true
	d.mu.Unlock()
	if err := d.adopt(ctx); err != nil {
		return errors.Join(err, d.Close())
	}
	d.wg.Go(d.pools.fill)
	return nil
}

// acquire gets what sandboxes share.
func (d *Driver) acquire(ctx context.Context) (err error) {
	if err := d.groups.open(); err != nil {
		return err
	}
	programs := filepath.Join(d.cfg.DataDir, "agent")
	if d.agent, err = agentImage(ctx, programs); err != nil {
		return err
	}
	if err := agent.InstallSentry(programs); err != nil {
		return err
	}
	if err := holdNumbers(); err != nil {
		return err
	}
	d.netns, err = newNetns()
	return err
}

// takeLock waits a moment for the lock: a process that was killed while it
// started another leaves its lock to that one until it has begun.
func (d *Driver) takeLock(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(d.cfg.DataDir, "driver.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	const wait, step = 2 * time.Second, 20 * time.Millisecond
	for waited := time.Duration(0); ; waited += step {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			d.lock = f
			return nil
		}
		if waited >= wait || !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return fmt.Errorf("lock data directory %s: another AgentCube is using it: %w", d.cfg.DataDir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return ctx.Err()
		case <-time.After(step):
		}
	}
}

func (d *Driver) releaseLock() {
	d.lock.Close()
	d.lock = nil
}

// Close lets go of the sandboxes, which keep running; those that wait in pools end.
func (d *Driver) Close() error {
	d.mu.Lock()
	if !d.open || d.closed {
		d.closed = true
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	var runs []*run
	for r := range d.serving {
		runs = append(runs, r)
	}
	empty := len(d.boxes) == 0
	d.mu.Unlock()

	d.cancel()
	for _, r := range d.pools.close() {
		d.discard(r)
	}
	d.stock.close()
	for _, r := range runs {
		r.letGo()
	}
	d.wg.Wait()
	close(d.exits)
	if empty {
		d.groups.removeParent()
	}
	d.netns.Close()
	d.releaseLock()
	return nil
}

// Exits implements sandbox.Driver.
func (d *Driver) Exits() <-chan sandbox.Exit { return d.exits }

// Capabilities implements sandbox.Driver.
func (d *Driver) Capabilities() sandbox.Capabilities {
	c := sandbox.Capabilities{Driver: "gvisor", Isolation: Isolation, Platform: d.cfg.Platform, Pause: true, Fork: true}
	for _, l := range []struct{ name, controller string }{{"cpu", "cpu"}, {"memory", "memory"}} {
		limit := sandbox.Limit{Name: l.name, Enforced: d.groups.missing[l.controller] == "", How: d.groups.version()}
		if !limit.Enforced {
			limit.How = d.groups.missing[l.controller]
		}
		c.Limits = append(c.Limits, limit)
	}
	// PicoD does not begin without its limit. It is one inside the sandbox, though,
	// and what is root there can get around it: that takes the host's behind it.
	processes := sandbox.Limit{Name: "processes", Enforced: true, How: "pids control group inside the sandbox, and " + d.groups.version() + " behind it"}
	if why := d.groups.missing["pids"]; why != "" {
		processes.Enforced, processes.How = false, "inside the sandbox alone, which root in it can get around: "+why
	}
	c.Limits = append(c.Limits, processes,
		sandbox.Limit{Name: "disk", Enforced: true, How: "size of the root file system's overlay"})
	return c
}

func (d *Driver) boxDir(id string) string { return filepath.Join(d.dir, id) }

func (d *Driver) find(id string) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open || d.closed {
		return nil, sandbox.ErrClosed
	}
	b, ok := d.boxes[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", sandbox.ErrNotFound, id)
	}
	return b, nil
}

// Get implements sandbox.Driver.
func (d *Driver) Get(_ context.Context, id string) (sandbox.Sandbox, error) {
	b, err := d.find(id)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	s, ready := b.describe()
	if !ready {
		return sandbox.Sandbox{}, fmt.Errorf("%w: %s", sandbox.ErrNotFound, id)
	}
	return s, nil
}

// List implements sandbox.Driver.
func (d *Driver) List(context.Context) ([]sandbox.Sandbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open || d.closed {
		return nil, sandbox.ErrClosed
	}
	out := make([]sandbox.Sandbox, 0, len(d.boxes))
	for _, b := range d.boxes {
		if s, ready := b.describe(); ready {
			out = append(out, s)
		}
	}
	return out, nil
}

// Dial implements sandbox.Driver.
func (d *Driver) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	b, err := d.find(id)
	if err != nil {
		return nil, err
	}
	r, err := b.running()
	if err != nil {
		return nil, err
	}
	conn, err := r.link.dial(ctx, port)
	if err != nil {
		// It may have been paused meanwhile, and the line ended with it.
		if _, now := b.running(); now != nil {
			return nil, now
		}
		return nil, err
	}
	return conn, nil
}
