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

	// Pause freezes a running sandbox, memory and files, and keeps it on disk
	// alone. Its connections break. When it fails the sandbox runs on, and
	// ErrDiskFull says that there is no room. Pausing a paused one succeeds.
	Pause(ctx context.Context, id string) error

	// Resume lets a paused sandbox go on where it was. When it fails the
	// sandbox is still paused. Resuming a running one succeeds.
	Resume(ctx context.Context, id string) error

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

	// Exits delivers each sandbox that ends without Delete having been
	// called for it, once, also one that ended while no process of AgentCube
	// was there to see it. The channel is closed by Close. There is one
	// channel, for one reader.
	Exits() <-chan Exit

	// Capabilities says what this driver can do on this machine. It is known
	// after Open and does not change.
	Capabilities() Capabilities
}
