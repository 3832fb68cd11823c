package gvisor

import (
	"context"
	"log/slog"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// ImageSource resolves image references to EROFS files on this machine.
type ImageSource interface {
	// Rootfs finds an image. Its EROFS file must stay there, unchanged, while any
	// sandbox made from it exists. An error that wraps sandbox.ErrNoImage says that
	// there is no such image.
	Rootfs(ctx context.Context, ref string) (sandbox.Image, error)
}

// Config of a Driver.
type Config struct {
	// DataDir is a directory of this driver's own; it is made when missing.
	// One driver at a time may use it.
	DataDir string
	Images  ImageSource
	// Platform is gVisor's: "systrap" (the default) or "kvm".
	Platform string
	// MemoryBudget bounds the memory of all sandboxes together, in bytes,
	// whatever their own limits add up to; 0 means no bound. When it is
	// reached, the kernel ends a process of one of them.
	MemoryBudget int64
	// SnapshotBudget bounds the disk, in bytes, that paused sandboxes and
	// snapshots take together; 0 means as much as the disk has.
	SnapshotBudget int64
	// Standby is for how many frames, those used last, a process of gVisor's
	// kernel waits ready for the next start or resume; 0 means for none. Each takes
	// some 15 MiB.
	Standby int
	Logger  *slog.Logger
}

// Defaults for limits that a spec leaves open.
const (
	DefaultCPUMillis   = 1000
	DefaultMemoryBytes = 1 << 30
	DefaultDiskBytes   = 1 << 30
	DefaultProcesses   = 256
)
