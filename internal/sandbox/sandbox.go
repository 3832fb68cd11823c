package sandbox

import (
	"errors"
	"time"
)

// Errors that drivers return, wrapped; test with errors.Is.
var (
	ErrExists      = errors.New("sandbox already exists")
	ErrNotFound    = errors.New("sandbox not found")
	ErrNotRunning  = errors.New("sandbox is not running")
	ErrPaused      = errors.New("sandbox is paused")
	ErrRefused     = errors.New("connection refused in the sandbox")
	ErrNoImage     = errors.New("image not found")
	ErrNoCommand   = errors.New("image names no command")
	ErrFull        = errors.New("no room for another sandbox")
	ErrDiskFull    = errors.New("no room on disk for the state of a sandbox")
	ErrNoSnapshot  = errors.New("snapshot not found")
	ErrBadSnapshot = errors.New("snapshot cannot be used") // damaged, or made elsewhere
	ErrUnsupported = errors.New("not supported by this driver")
	ErrNotAllowed  = errors.New("this machine does not allow sandboxes")
	ErrBadTemplate = errors.New("sandboxes of this template cannot be made")
	ErrInvalidSpec = errors.New("invalid sandbox spec")
	ErrClosed      = errors.New("driver is closed")
)

// AgentPort is the TCP port inside every sandbox on which PicoD listens.
const AgentPort uint16 = 8080

// UserID is the unprivileged user of sandboxes, and its group; the default image has
// it, too.
const UserID = 1000

// Spec describes the sandbox to be made.
type Spec struct {
	// ID names the sandbox: 1 to 63 characters of [a-z0-9-]. The caller
	// chooses it, so that a record of the sandbox can be written first.
	ID string
	// Image is a reference that the driver can resolve.
	Image string
	// Command and Args replace what the sandbox's first process would be.
	// Both empty means PicoD, serving the data-plane API, unless OwnServer is set.
	Command []string
	Args    []string
	// OwnServer: the first process is not PicoD. What is left out of Command is the
	// image's entry point, and of both of them, the image's arguments too, as on
	// Kubernetes; ErrNoCommand when the image has neither.
	OwnServer bool
	// WorkingDir is where such a process begins; "" means where the image says,
	// else in the root.
	WorkingDir string
	// User is whom such a process runs as; nil means root with RunAsRoot, else the
	// unprivileged user, UserID.
	User *User
	// Env is added to the environment of what runs in the sandbox.
	Env map[string]string
	// Resources bound the sandbox.
	Resources Resources
	// RunAsRoot runs user code as root inside the sandbox; otherwise it is an
	// unprivileged user, and PicoD is out of its reach.
	RunAsRoot bool
	// Workspace is the working directory, upload root and HOME of user code.
	Workspace string
	// BootstrapKey is the PEM public key whose holder may hand PicoD its session key.
	BootstrapKey string
	// Labels are kept with the sandbox and returned by Get and List.
	Labels map[string]string
	// MinIsolation, when not empty, is the isolation that the sandbox must have at least.
	MinIsolation string
	// Preload are the Python modules that user code finds imported already.
	// What cannot be imported is left out.
	Preload []string
	// Extras are what its template says to one driver alone, which knows their type;
	// others do not look at them. Nil where a template says nothing of the kind.
	Extras any
	// Snapshot, when not empty, is what the sandbox starts from: its memory
	// and files, and its Image, Command, Args, Env, Resources, RunAsRoot,
	// Workspace and Preload in place of those given here. Its identity is its
	// own: PicoD waits for a session key again, as in any new sandbox.
	Snapshot string
}

// User is a user inside a sandbox.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Image is what a driver on one machine has of an image.
type Image struct {
	// Rootfs is the absolute path of its EROFS file.
	Rootfs string
	// Env ("KEY=value"), Entrypoint, Cmd and WorkingDir are what it declares.
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
}

// Pool is a number of sandboxes that wait ready-made.
type Pool struct {
	// Name is for people: the template it is for.
	Name string
	// Spec is what Create will be called with; ID, Labels, MinIsolation and
	// Snapshot are not looked at.
	Spec Spec
	Size int
}

// PoolSize is how full a pool is.
type PoolSize struct {
	// Name is that of the Pool.
	Name          string
	Wanted, Ready int
}

// Snapshot is the state of a sandbox, memory and files, kept on disk.
type Snapshot struct {
	Name      string
	CreatedAt time.Time
	// SizeBytes is the room it takes on disk.
	SizeBytes int64
	// Resources are the bounds of sandboxes made from it.
	Resources Resources
}

// Resources bound a sandbox. Zero means the driver's default, never "no limit".
type Resources struct {
	// CPUMillis is CPU time per second of wall-clock time, in thousandths of a core.
	CPUMillis int64
	// MemoryBytes bounds all memory of the sandbox, the kernel's share included.
	MemoryBytes int64
	// DiskBytes bounds what can be written to its file system.
	DiskBytes int64
	// Processes bounds the number of processes and threads of user code.
	Processes int64
}

// Sandbox describes a sandbox that exists.
type Sandbox struct {
	ID        string
	CreatedAt time.Time
	Labels    map[string]string
	// Isolation is what separates it from the host, as it really is.
	Isolation string
	// AgentID is what its PicoD takes itself for, which tokens for it have to name;
	// "" means ID.
	AgentID string
	// Address is the IP address at which its ports can be reached, for as long as it
	// is there; "" when they are reached by Driver.Dial alone.
	Address string
	// Paused: it is on disk alone.
	Paused bool
	// Exit is nil while the sandbox runs or is paused.
	Exit *Exit
	// Start is how Create came by it; "" where the driver does not say, and from
	// all other methods.
	Start Start
}

// Start is how a new sandbox came about.
type Start string

// The ways, the fastest first.
const (
	StartPool     Start = "pool"     // it waited ready-made
	StartSnapshot Start = "snapshot" // it was restored
	StartBoot     Start = "boot"     // it began at the beginning
)

// ExitReason is why a sandbox ended by itself.
type ExitReason string

// The reasons.
const (
	ExitOutOfMemory ExitReason = "out-of-memory" // the kernel ended it at its memory limit
	ExitStopped     ExitReason = "stopped"       // its first process ended
	ExitLost        ExitReason = "lost"          // it was gone when looked for (reboot, killed from outside)
)

// Exit tells that a sandbox ended by itself.
type Exit struct {
	ID     string
	Reason ExitReason
	// Detail is one sentence for people, in lower case and without a full
	// stop; it holds nothing that user code printed.
	Detail string
	At     time.Time
}

// Limit is one resource limit and how it is held on this machine.
type Limit struct {
	// Name is "cpu", "memory", "processes" or "disk".
	Name     string `json:"name"`
	Enforced bool   `json:"enforced"`
	// How says by what it is enforced, or why it is not.
	How string `json:"how"`
}

// Capabilities of a driver on this machine.
type Capabilities struct {
	// Driver is its name: "gvisor", "kube", "fake".
	Driver string `json:"driver"`
	// Isolation is what its sandboxes have: "gvisor", ...
	Isolation string `json:"isolation"`
	// Platform is how, such as "systrap".
	Platform string  `json:"platform"`
	Limits   []Limit `json:"limits"`
	Pause    bool    `json:"pause"`
	Fork     bool    `json:"fork"`
}

// Transient begins the names of snapshots that are used at once and then removed, as
// for a fork: nothing is done to make them last.
const Transient = "f-"
