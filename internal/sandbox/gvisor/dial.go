package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// dialPort asks a sandbox's kernel to connect one end of a socket pair to a
// port on its loopback interface, and returns the other end.
func dialPort(ctx context.Context, socket string, port uint16) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "sandbox"), os.NewFile(uintptr(pair[1]), "forward")
	defer ours.Close() // FileConn duplicates it
	defer theirs.Close()

	control, err := client.ConnectTo(socket)
	if err != nil {
		return nil, fmt.Errorf("%w: connect to its control socket: %w", sandbox.ErrNotRunning, err)
	}
	defer control.Close()
	stop := context.AfterFunc(ctx, func() { control.Close() })
	defer stop()

	opts := boot.PortForwardOpts{
		FilePayload: urpc.FilePayload{Files: []*os.File{theirs}},
		ContainerID: containerID,
		Port:        port,
	}
	if err := control.Call(boot.ContMgrPortForward, &opts, nil); err != nil {
		return nil, forwardError(ctx, err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("use socket pair: %w", err)
	}
	return conn, nil
}

// forwardError gives a control-socket error its meaning. Error types are lost
// on that socket, so that only the text is left to go by.
func forwardError(ctx context.Context, err error) error {
	var remote urpc.RemoteError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &remote) && strings.Contains(remote.Message, "connection was refused"),
		errors.As(err, &remote) && strings.Contains(remote.Message, "connection refused"):
		return fmt.Errorf("%w: %s", sandbox.ErrRefused, remote.Message)
	case errors.As(err, &remote):
		return fmt.Errorf("forward port: %w", err)
	}
	return fmt.Errorf("%w: %w", sandbox.ErrNotRunning, err)
}
