package sandbox

import (
	"context"
	"net"
)

// Driver makes, finds, reaches and removes sandboxes.
//
// All methods are safe for concurrent use, honour ctx, and return errors for
// which errors.Is with the values of this package holds where one applies.
// A Driver is made by its package's New (no I/O), started by Open and ended by
// Close; Close leaves the sandboxes running, so that the next Open finds them.
//
// What not every driver can do is in Warmer, Sleeper and Copier, and its
// Capabilities say which it is. Complete makes any driver all of them.
type Driver interface {
	// Create makes a sandbox and starts it. It returns when PicoD inside
	// answers its health check. When it fails, or ctx ends first, nothing of
	// the sandbox is left. A second Create with the ID of a living sandbox
	// fails with ErrExists. ErrNotAllowed when the machine lets no sandbox be
	// made, such as a container without user namespaces.
	Create(ctx context.Context, spec Spec) (Sandbox, error)

	// Get describes a sandbox that exists; ErrNotFound otherwise. A sandbox
	// that has ended but was not deleted is still there, with its Exit set.
	Get(ctx context.Context, id string) (Sandbox, error)

	// List describes all sandboxes that exist, in no order, including those
	// made by an earlier process of AgentCube with the same data directory.
	List(ctx context.Context) ([]Sandbox, error)

	// Delete ends a sandbox, if it runs, and removes all that belongs to it:
	// processes, mounts, cgroups, files. Deleting what does not exist
	// succeeds. When Delete fails it can be called again.
	Delete(ctx context.Context, id string) error

	// Dial opens a byte stream to a TCP port on the loopback interface of the
	// sandbox. ErrNotFound when there is no such sandbox, ErrNotRunning when
	// it has ended, ErrPaused when it is paused or about to be, ErrRefused
	// when nothing listens on the port.
	Dial(ctx context.Context, id string, port uint16) (net.Conn, error)

	// Exits delivers each sandbox that ends without Delete having been
	// called for it, once, also one that ended while no process of AgentCube
	// was there to see it. The channel is closed by Close. There is one
	// channel, for one reader.
	Exits() <-chan Exit

	// Capabilities says what this driver can do on this machine. It is known
	// after Open and does not change.
	Capabilities() Capabilities
}

// Warmer is a Driver that can make sandboxes ahead of time when it is told to.
type Warmer interface {
	// Prepare makes what Create needs to be fast with such a spec, a snapshot
	// of a sandbox that has just begun, unless it is there. Then it waits until
	// the pool for such a spec, if Warm asked for one, is full or cannot be
	// filled now. ID, Labels and Snapshot of the spec are not looked at.
	// progress, which may be nil, is told the steps in words. ErrUnsupported
	// where there is nothing to prepare.
	Prepare(ctx context.Context, spec Spec, progress func(step string)) error

	// Warm says which sandboxes shall wait ready-made for a Create with the
	// same spec, in place of what an earlier call said. It returns at once;
	// pools fill in the background, and only while there is room. What waits
	// in a pool has no ID, and Get and List do not show it.
	Warm(pools []Pool)
}

// Sleeper is a Driver that can put sandboxes to sleep.
type Sleeper interface {
	// Pause freezes a running sandbox, memory and files, and keeps it on disk
	// alone. Its connections break. When it fails the sandbox runs on, and
	// ErrDiskFull says that there is no room. Pausing a paused one succeeds.
	Pause(ctx context.Context, id string) error

	// Resume lets a paused sandbox go on where it was. When it fails the
	// sandbox is still paused. Resuming a running one succeeds.
	Resume(ctx context.Context, id string) error
}

// Copier is a Driver that can keep the state of sandboxes and make more from it.
type Copier interface {
	// Checkpoint keeps the state of a running or paused sandbox, which goes on
	// as it was, under the name of a snapshot: 1 to 63 characters of [a-z0-9-].
	// Create with Spec.Snapshot starts from it, as often as wanted, or fails with
	// ErrNoSnapshot or, when it is damaged or foreign, ErrBadSnapshot. ErrExists
	// when the name is taken, ErrDiskFull when there is no room. One whose name begins
	// with Transient need not be there any more after the next Open.
	Checkpoint(ctx context.Context, id, snapshot string) (Snapshot, error)

	// Snapshots describes what Checkpoint has made and DeleteSnapshot has not
	// removed.
	Snapshots(ctx context.Context) ([]Snapshot, error)

	// DeleteSnapshot removes a snapshot. Removing what does not exist
	// succeeds; sandboxes made from it are not touched.
	DeleteSnapshot(ctx context.Context, snapshot string) error
}

// PoolCounter is a Driver that can say how full its pools are.
type PoolCounter interface {
	// PoolSizes returns one for each of the pools that Warm was told last and that
	// can be filled at all, in no order. Pools for the same sandboxes may be one,
	// under one of their names. It does not block.
	PoolSizes() []PoolSize
}

// Isolator is a Driver whose sandboxes are not all isolated alike.
type Isolator interface {
	// IsolationOf is what the sandboxes with such a spec are isolated by. It does no I/O.
	// ErrBadTemplate when none can be made.
	IsolationOf(spec Spec) (string, error)
}

// Full is a Driver with everything that a driver may be able to do.
type Full interface {
	Driver
	Warmer
	Sleeper
	Copier
}

// Complete is d with what it cannot do answered by ErrUnsupported. Pools that a driver
// does not know of are left out.
func Complete(d Driver) Full {
	if f, ok := d.(Full); ok {
		return f
	}
	c := completed{Driver: d, Warmer: unable{}, Sleeper: unable{}, Copier: unable{}}
	if w, ok := d.(Warmer); ok {
		c.Warmer = w
	}
	if s, ok := d.(Sleeper); ok {
		c.Sleeper = s
	}
	if k, ok := d.(Copier); ok {
		c.Copier = k
	}
	return c
}

type completed struct {
	Driver
	Warmer
	Sleeper
	Copier
}

// unable can do nothing of it.
type unable struct{}

func (unable) Prepare(context.Context, Spec, func(string)) error { return ErrUnsupported }

func (unable) Warm([]Pool) {}

func (unable) Pause(context.Context, string) error { return ErrUnsupported }

func (unable) Resume(context.Context, string) error { return ErrUnsupported }

func (unable) Checkpoint(context.Context, string, string) (Snapshot, error) {
	return Snapshot{}, ErrUnsupported
}

func (unable) Snapshots(context.Context) ([]Snapshot, error) { return nil, nil }

func (unable) DeleteSnapshot(context.Context, string) error { return nil }
