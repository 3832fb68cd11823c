package gvisor

import (
	"context"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Prepare implements sandbox.Driver: there is nothing to prepare.
func (d *Driver) Prepare(context.Context, sandbox.Spec, func(string)) error {
	return sandbox.ErrUnsupported
}

// Warm implements sandbox.Driver.
func (d *Driver) Warm([]sandbox.Pool) {}

// Pause implements sandbox.Driver.
func (d *Driver) Pause(context.Context, string) error { return sandbox.ErrUnsupported }

// Resume implements sandbox.Driver.
func (d *Driver) Resume(context.Context, string) error { return sandbox.ErrUnsupported }

// Checkpoint implements sandbox.Driver.
func (d *Driver) Checkpoint(context.Context, string, string) (sandbox.Snapshot, error) {
	return sandbox.Snapshot{}, sandbox.ErrUnsupported
}

// Snapshots implements sandbox.Driver.
func (d *Driver) Snapshots(context.Context) ([]sandbox.Snapshot, error) { return nil, nil }

// DeleteSnapshot implements sandbox.Driver.
func (d *Driver) DeleteSnapshot(context.Context, string) error { return nil }
