package security

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// endTime is how long a command may take to end when it is told to.
const endTime = 20 * time.Second

// outcome is how a command ended by itself.
type outcome struct {
	code   int
	output string // of both kinds
}

// command runs a program in a folder, with variables besides those of this process.
// The error is that it could not be run, or had to be ended: as ctx ended, or the time
// was over. With it end all that it started and that stayed in its process group.
func command(ctx context.Context, limit time.Duration, dir string, env []string, args ...string) (outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not end within %v", args[0], limit))
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.Env = append(cmd.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// As Ctrl-C does, so that a server has the time to end its sandboxes.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = endTime
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // usually nobody is left
	}
	result := outcome{cmd.ProcessState.ExitCode(), out.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	case err != nil && !errors.As(err, &exit):
		return result, fmt.Errorf("run %s: %w", args[0], err)
	}
	return result, nil
}
