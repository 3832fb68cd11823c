package fake

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Isolation is what the sandboxes of this driver say they have: none.
const Isolation = "none"

// Hooks are called inside the methods of a Driver, before they take effect; an
// error makes the method fail with it. They may block, and honour ctx. All are
// optional.
type Hooks struct {
	Create func(ctx context.Context, spec sandbox.Spec) error
	// Created is called when the sandbox runs and Create is about to return.
	// An error makes Create undo its work and fail.
	Created func(ctx context.Context, spec sandbox.Spec) error
	Delete  func(ctx context.Context, id string) error
	// Deleted is called when the sandbox is gone and Delete is about to return.
	Deleted func(ctx context.Context, id string) error
	Dial    func(ctx context.Context, id string, port uint16) error
	List    func(ctx context.Context) error
	Prepare func(ctx context.Context, spec sandbox.Spec) error
	// Pause is called when Dial has begun to fail with sandbox.ErrPaused.
	Pause      func(ctx context.Context, id string) error
	Resume     func(ctx context.Context, id string) error
	Checkpoint func(ctx context.Context, id, snapshot string) error
	// DeleteSnapshot is called for snapshots that are not there, too.
	DeleteSnapshot func(ctx context.Context, snapshot string) error
}

// Config of a Driver.
type Config struct {
	Host  *Host
	Hooks Hooks
	// Images are the references that exist; nil means that all do.
	Images []string
	// Capacity bounds the sandboxes that are not paused; 0 means no bound. Over
	// it Create and Resume fail with sandbox.ErrFull.
	Capacity int
	// Isolation is what Capabilities claims; "" means Isolation.
	Isolation string
}

// Driver is a sandbox.Driver whose sandboxes are in memory.
type Driver struct {
	cfg   Config
	exits *exitQueue

	mu       sync.Mutex
	creating map[string]chan struct{} // closed when that Create is over
	pools    []pool
	closed   bool
}

var _ sandbox.Full = (*Driver)(nil)

// New makes a driver; call Open before anything else.
func New(cfg Config) *Driver {
	if cfg.Isolation == "" {
		cfg.Isolation = Isolation
	}
	return &Driver{cfg: cfg, exits: newExitQueue(), creating: map[string]chan struct{}{}}
}

// Open finds the sandboxes of the host and starts to deliver exits.
func (d *Driver) Open(context.Context) error {
	h := d.cfg.Host
	h.mu.Lock()
	h.watchers[d] = struct{}{}
	var ended []sandbox.Exit
	for _, b := range h.sandboxes {
		if b.info.Exit != nil {
			ended = append(ended, *b.info.Exit)
		}
	}
	h.mu.Unlock()
	for _, e := range ended {
		d.exits.add(e)
	}
	d.exits.start()
	return nil
}

// Close ends the delivery of exits. Sandboxes stay on the host.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cfg.Host.mu.Lock()
	delete(d.cfg.Host.watchers, d)
	d.cfg.Host.mu.Unlock()
	d.exits.close()
	return nil
}

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	s, err := d.create(ctx, spec)
	if err != nil {
		return sandbox.Sandbox{}, fmt.Errorf("create sandbox %s: %w", spec.ID, err)
	}
	return s, nil
}

func (d *Driver) create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := d.check(spec); err != nil {
		return sandbox.Sandbox{}, err
	}
	done, err := d.reserve(spec.ID)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer done()
	if d.cfg.Hooks.Create != nil {
		if err := d.cfg.Hooks.Create(ctx, spec); err != nil {
			return sandbox.Sandbox{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	start := sandbox.StartSnapshot
	if spec.Snapshot == "" {
		start = d.claim(spec)
	}
	spec, handlers, err := d.inside(spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	b := newBox(spec, handlers)
	h := d.cfg.Host
	h.mu.Lock()
	h.sandboxes[spec.ID] = b
	out := b.describe()
	h.mu.Unlock()
	out.Start = start
	if d.cfg.Hooks.Created != nil {
		if err := d.cfg.Hooks.Created(ctx, spec); err != nil {
			h.Lose(spec.ID)
			return sandbox.Sandbox{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		h.Lose(spec.ID)
		return sandbox.Sandbox{}, err
	}
	return out, nil
}

func (d *Driver) check(spec sandbox.Spec) error {
	switch {
	case !validID(spec.ID):
		return sandbox.ErrInvalidSpec
	case spec.Snapshot != "":
		return nil
	}
	return d.checkImage(spec)
}

func (d *Driver) checkImage(spec sandbox.Spec) error {
	switch {
	case spec.Image == "":
		return sandbox.ErrInvalidSpec
	case d.cfg.Images == nil:
		return nil
	}
	for _, i := range d.cfg.Images {
		if i == spec.Image {
			return nil
		}
	}
	return fmt.Errorf("%w: %s", sandbox.ErrNoImage, spec.Image)
}

func validID(id string) bool {
	if len(id) == 0 || len(id) > 63 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// reserve takes the id for one Create; the returned function gives it back.
func (d *Driver) reserve(id string) (func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, sandbox.ErrClosed
	}
	if _, ok := d.creating[id]; ok {
		return nil, sandbox.ErrExists
	}
	h := d.cfg.Host
	h.mu.Lock()
	_, exists := h.sandboxes[id]
	n := h.awakeLocked()
	h.mu.Unlock()
	if exists {
		return nil, sandbox.ErrExists
	}
	if d.cfg.Capacity > 0 && n+len(d.creating) >= d.cfg.Capacity {
		return nil, sandbox.ErrFull
	}
	ch := make(chan struct{})
	d.creating[id] = ch
	return func() {
		d.mu.Lock()
		delete(d.creating, id)
		d.mu.Unlock()
		close(ch)
	}, nil
}

// Get implements sandbox.Driver.
func (d *Driver) Get(ctx context.Context, id string) (sandbox.Sandbox, error) {
	if err := d.usable(ctx); err != nil {
		return sandbox.Sandbox{}, err
	}
	h := d.cfg.Host
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.sandboxes[id]
	if !ok {
		return sandbox.Sandbox{}, fmt.Errorf("get sandbox %s: %w", id, sandbox.ErrNotFound)
	}
	return b.describe(), nil
}

// List implements sandbox.Driver.
func (d *Driver) List(ctx context.Context) ([]sandbox.Sandbox, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	if d.cfg.Hooks.List != nil {
		if err := d.cfg.Hooks.List(ctx); err != nil {
			return nil, err
		}
	}
	return d.cfg.Host.list(), nil
}

// Delete implements sandbox.Driver. It waits for a Create of the same id.
func (d *Driver) Delete(ctx context.Context, id string) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	if d.cfg.Hooks.Delete != nil {
		if err := d.cfg.Hooks.Delete(ctx, id); err != nil {
			return fmt.Errorf("delete sandbox %s: %w", id, err)
		}
	}
	d.mu.Lock()
	ch := d.creating[id]
	d.mu.Unlock()
	if ch != nil {
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("delete sandbox %s: %w", id, ctx.Err())
		}
	}
	d.cfg.Host.Lose(id)
	if d.cfg.Hooks.Deleted != nil {
		if err := d.cfg.Hooks.Deleted(ctx, id); err != nil {
			return fmt.Errorf("delete sandbox %s: %w", id, err)
		}
	}
	return nil
}

// Dial implements sandbox.Driver.
func (d *Driver) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	if d.cfg.Hooks.Dial != nil {
		if err := d.cfg.Hooks.Dial(ctx, id, port); err != nil {
			return nil, fmt.Errorf("dial sandbox %s: %w", id, err)
		}
	}
	h := d.cfg.Host
	h.mu.Lock()
	b, ok := h.sandboxes[id]
	var err error
	var running *servers
	switch {
	case !ok:
		err = sandbox.ErrNotFound
	case b.info.Exit != nil:
		err = sandbox.ErrNotRunning
	case b.pausing || b.info.Paused:
		err = sandbox.ErrPaused
	default:
		running = b.running
	}
	h.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("dial sandbox %s: %w", id, err)
	}
	c, err := running.dial(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("dial sandbox %s port %d: %w", id, port, err)
	}
	return c, nil
}

// Exits implements sandbox.Driver.
func (d *Driver) Exits() <-chan sandbox.Exit { return d.exits.out }

// Capabilities implements sandbox.Driver.
func (d *Driver) Capabilities() sandbox.Capabilities {
	return sandbox.Capabilities{Driver: "fake", Isolation: d.cfg.Isolation, Platform: "memory", Pause: true, Fork: true}
}

func (d *Driver) usable(ctx context.Context) error {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return sandbox.ErrClosed
	}
	return ctx.Err()
}
