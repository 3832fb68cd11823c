package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/runsc/boot"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/trunk"
)

// trunkFD is where PicoD finds its end of the trunk. (gVisor's port forwarding
// would need none, but drops bytes when a buffer is full.)
const trunkFD = 3

// newTrunk makes a trunk: our end, and the file for the sandbox.
func newTrunk() (*trunk.Dialer, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "trunk"), os.NewFile(uintptr(pair[1]), "trunk")
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("use socket pair: %w", err)
	}
	dialer, err := trunk.NewDialer(conn)
	if err != nil {
		conn.Close()
		theirs.Close()
		return nil, nil, err
	}
	return dialer, theirs, nil
}

// dial opens a stream to a port in the sandbox, ready or not. The first one
// after the sandbox was adopted starts a relay in it, as the trunk that it was
// made with ended with the process that made it.
func (b *box) dial(ctx context.Context, port uint16) (net.Conn, error) {
	line, err := b.line(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := line.Dial(ctx, port)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, trunk.ErrRefused):
		return nil, fmt.Errorf("%w: port %d", sandbox.ErrRefused, port)
	case errors.Is(err, trunk.ErrFailed):
		return nil, fmt.Errorf("dial sandbox: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", sandbox.ErrNotRunning, err)
}

// line is the trunk in use, made anew when it has ended.
func (b *box) line(ctx context.Context) (*trunk.Dialer, error) {
	b.lineMu.Lock()
	defer b.lineMu.Unlock()
	if b.trunk != nil && b.trunk.Alive() {
		return b.trunk, nil
	}
	b.mu.Lock()
	socket, ended := b.rec.Socket, b.exit != nil
	b.mu.Unlock()
	if ended {
		return nil, fmt.Errorf("%w: %s", sandbox.ErrNotRunning, b.rec.ID)
	}
	line, theirs, err := newTrunk()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := startRelay(ctx, socket, theirs); err != nil {
		line.Close()
		return nil, err
	}
	b.trunk = line
	return line, nil
}

// hangUp ends the trunk.
func (b *box) hangUp() {
	b.lineMu.Lock()
	defer b.lineMu.Unlock()
	if b.trunk != nil {
		b.trunk.Close()
	}
}

// startRelay starts a process in the sandbox that serves a trunk.
func startRelay(ctx context.Context, socket string, theirs *os.File) error {
	conn, err := client.ConnectTo(socket)
	if err != nil {
		return fmt.Errorf("%w: connect to its control socket: %w", sandbox.ErrNotRunning, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	args := control.ExecArgs{
		Filename: agentPath, Argv: []string{agentPath, "relay"}, WorkingDirectory: "/",
		ContainerID: containerID, FilePayload: control.NewFilePayload(map[int]*os.File{0: theirs}, nil),
	}
	var pid int32
	if err := conn.Call(boot.ContMgrExecuteAsync, &args, &pid); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("start relay in the sandbox: %w", err)
	}
	return nil
}
