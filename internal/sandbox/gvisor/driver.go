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
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	gvisorlog "gvisor.dev/gvisor/pkg/log"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Isolation is what this driver's sandboxes report.
const Isolation = "gvisor"

// Driver implements sandbox.Driver.
type Driver struct {
	cfg  Config
	dir  string // sandboxes/
	boot string

	lock   *os.File
	netns  *os.File
	groups *cgroups
	agent  string // EROFS image of PicoD

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	exits  chan sandbox.Exit
	wg     sync.WaitGroup

	mu     sync.Mutex
	open   bool
	closed bool
	boxes  map[string]*box
}

var _ sandbox.Driver = (*Driver)(nil)

// New makes a driver; Open starts it.
func New(cfg Config) *Driver {
	if cfg.Platform == "" {
		cfg.Platform = "systrap"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Driver{
		cfg: cfg, dir: filepath.Join(cfg.DataDir, "sandboxes"),
		ctx: ctx, cancel: cancel,
		exits: make(chan sandbox.Exit), boxes: map[string]*box{},
	}
}

// Open takes the data directory, adopts the sandboxes that live there and
// removes what a killed process left half made. Not more than one driver can
// have the directory open.
func (d *Driver) Open(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the gVisor driver needs root: it makes namespaces and control groups")
	}
	if longest := len(d.socketPath("s-00000000-0000-0000-0000-000000000000")); longest >= unix.SizeofSockaddrUnix-2 {
		return fmt.Errorf("data directory %q: its name is too long for a socket below it: choose a shorter one", d.cfg.DataDir)
	}
	if err := os.MkdirAll(d.dir, 0o711); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if err := d.takeLock(ctx); err != nil {
		return err
	}
	// gVisor's packages log through a global of their own. What they say is
	// for those who debug gVisor.
	gvisorlog.SetTarget(&gvisorlog.GoogleEmitter{Writer: &gvisorlog.Writer{Next: io.Discard}})
	d.boot = bootID()
	sum := sha256.Sum256([]byte(d.dir))
	d.groups = findCgroups("agentcube-"+hex.EncodeToString(sum[:4]), d.cfg.MemoryBudget)
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
	return nil
}

// acquire gets what sandboxes share.
func (d *Driver) acquire(ctx context.Context) (err error) {
	if err := d.groups.open(); err != nil {
		return err
	}
	if d.agent, err = agentImage(ctx, filepath.Join(d.cfg.DataDir, "agent")); err != nil {
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

// Close lets go of the sandboxes, which keep running.
func (d *Driver) Close() error {
	d.mu.Lock()
	if !d.open || d.closed {
		d.closed = true
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	boxes := make([]*box, 0, len(d.boxes))
	for _, b := range d.boxes {
		boxes = append(boxes, b)
	}
	empty := len(boxes) == 0
	d.mu.Unlock()

	d.cancel()
	for _, b := range boxes {
		b.letGo()
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
	c := sandbox.Capabilities{Driver: "gvisor", Isolation: Isolation, Platform: d.cfg.Platform}
	for _, l := range []struct{ name, controller string }{{"cpu", "cpu"}, {"memory", "memory"}} {
		limit := sandbox.Limit{Name: l.name, Enforced: d.groups.missing[l.controller] == "", How: d.groups.version()}
		if !limit.Enforced {
			limit.How = d.groups.missing[l.controller]
		}
		c.Limits = append(c.Limits, limit)
	}
	c.Limits = append(c.Limits,
		sandbox.Limit{Name: "processes", Enforced: true, How: "pids control group inside the sandbox"},
		sandbox.Limit{Name: "disk", Enforced: true, How: "size of the root file system's overlay"})
	return c
}

func (d *Driver) boxDir(id string) string { return filepath.Join(d.dir, id) }

func (d *Driver) stateDir(id string) string { return filepath.Join(d.boxDir(id), "r") }

// socketPath is where gVisor puts the control socket.
func (d *Driver) socketPath(id string) string {
	return filepath.Join(d.stateDir(id), "runsc-"+containerID+".sock")
}

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
	if err := b.reachable(); err != nil {
		return nil, err
	}
	return b.dial(ctx, port)
}

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	spec, err := withDefaults(spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if spec.MinIsolation != "" && spec.MinIsolation != Isolation {
		return sandbox.Sandbox{}, fmt.Errorf("%w: isolation %q is not available here, only %q", sandbox.ErrInvalidSpec, spec.MinIsolation, Isolation)
	}
	b, err := d.reserve(spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer d.wg.Done()
	defer close(b.made)
	making, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(b.unwanted, cancel)
	defer stop()
	if err := d.make(making, b, spec); err != nil {
		// What was made must go, also when the caller has given up.
		clean, done := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer done()
		return sandbox.Sandbox{}, errors.Join(err, d.destroy(clean, b))
	}
	s, _ := b.describe()
	return s, nil
}

// reserve takes the id. The caller must call d.wg.Done.
func (d *Driver) reserve(spec sandbox.Spec) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open || d.closed {
		return nil, sandbox.ErrClosed
	}
	if _, ok := d.boxes[spec.ID]; ok {
		return nil, fmt.Errorf("%w: %s", sandbox.ErrExists, spec.ID)
	}
	b := newBox(record{
		Version: recordVersion, ID: spec.ID, CreatedAt: time.Now().UTC(),
		Labels: spec.Labels, Image: spec.Image, BootID: d.boot,
	}, d.boxDir(spec.ID))
	d.boxes[spec.ID] = b
	d.wg.Add(1)
	return b, nil
}

// make does what Create promises; what it leaves when it fails, the caller removes.
func (d *Driver) make(ctx context.Context, b *box, spec sandbox.Spec) error {
	imagePath, imageEnv, err := d.cfg.Images.Rootfs(ctx, spec.Image)
	if err != nil {
		return fmt.Errorf("find image %s: %w", spec.Image, err)
	}
	b.rec.ImagePath = imagePath
	bundleDir := filepath.Join(b.dir, bundlePrefix+strconv.FormatInt(spec.Resources.MemoryBytes, 10))
	if err := os.MkdirAll(bundleDir, 0o711); err != nil {
		return fmt.Errorf("make sandbox directory: %w", err)
	}
	if err := b.save(nil); err != nil {
		return err
	}
	if err := d.groups.create(spec.ID, spec.Resources); err != nil {
		return err
	}
	conf, err := runscConfig(d.stateDir(spec.ID), filepath.Join(b.dir, panicLog), d.cfg.Platform)
	if err != nil {
		return err
	}
	oci, err := writeBundle(bundleDir, ociSpec(bundle{
		spec: spec, imagePath: imagePath, imageEnv: imageEnv, agentPath: d.agent,
		rootDir: filepath.Join(bundleDir, "rootfs"),
		netns:   fmt.Sprintf("/proc/self/fd/%d", d.netns.Fd()),
	}), conf)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	line, theirs, err := newTrunk()
	if err != nil {
		return err
	}
	defer theirs.Close()
	b.lineMu.Lock()
	b.trunk = line
	b.lineMu.Unlock()
	err = start(bundleDir, oci, conf, theirs,
		func(pids []int) error { return d.groups.join(spec.ID, pids) },
		func(s started) error { return d.watch(b, s) })
	if err != nil {
		return err
	}
	dial := func(ctx context.Context) (net.Conn, error) { return b.dial(ctx, sandbox.AgentPort) }
	if err := waitReady(ctx, dial, b.gone); err != nil {
		return err
	}
	return b.save(func(r *record) { r.Ready = true })
}
