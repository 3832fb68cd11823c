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
	// fails with ErrExists.
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
	// it has ended, ErrRefused when nothing listens on the port.
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
