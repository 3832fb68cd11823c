package gvisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/runsc/boot"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/trunk"
)

// hostFD is the first of the four file descriptors where PicoD finds its end
// of the line. (gVisor's port forwarding would need none, but drops bytes when
// a buffer is full.)
const hostFD = 3

// link is the host's end of the line to a sandbox. It is safe for concurrent
// use. A line that was lost, with the process that had it, is made anew by the
// first who needs it.
type link struct {
	agent  bool   // PicoD is at the other end; otherwise a relay, without control
	socket string // of gVisor, to run a process in the sandbox

	making sync.Mutex // held by the one who makes a line

	mu   sync.Mutex
	over bool // for good
	now  line
}

// line is one line. The zero value is none.
type line struct {
	control *hostlink.Control // nil with a relay
	trunk   *trunk.Dialer
}

func (l line) alive() bool { return l.trunk != nil && l.trunk.Alive() }

func (l line) hangUp() {
	if l.trunk != nil {
		l.trunk.Close()
	}
	if l.control != nil {
		l.control.Close()
	}
}

// connect begins a trunk with PicoD on a line that it has the other end of; the
// control messages first go before it. With a host name the sandbox takes that.
// The line is closed when it fails.
func (l *link) connect(ctx context.Context, ours hostlink.Files, host string, first ...hostlink.Request) (err error) {
	made := line{control: hostlink.NewControl(ours.Control())}
	defer func() {
		if err != nil {
			made.hangUp()
			ours.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { ours.Close() })
	defer stop()
	nonce := make([]byte, hostlink.NonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("make nonce: %w", err)
	}
	for _, req := range append(first, hostlink.Request{Op: hostlink.OpConnect, Nonce: nonce, Hostname: host}) {
		if err := made.control.Call(ctx, req); err != nil {
			return err
		}
	}
	if _, err := ours.Trunk().Write(nonce); err != nil {
		return fmt.Errorf("greet the agent: %w", err)
	}
	if err := hostlink.AwaitNonce(ours.Trunk(), nonce); err != nil {
		return err
	}
	if made.trunk, err = trunk.NewDialer(ours.Trunk()); err != nil {
		return err
	}
	return l.use(made)
}

// use makes a line the one in use.
func (l *link) use(made line) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return sandbox.ErrNotRunning
	}
	l.now.hangUp()
	l.now = made
	return nil
}

// current is the line in use, attached anew when it has ended.
func (l *link) current(ctx context.Context) (line, error) {
	if now, err := l.inUse(); err != nil || now.alive() {
		return now, err
	}
	l.making.Lock()
	defer l.making.Unlock()
	if now, err := l.inUse(); err != nil || now.alive() {
		return now, err
	}
	if err := l.attach(ctx); err != nil {
		return line{}, err
	}
	return l.inUse()
}

func (l *link) inUse() (line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return line{}, sandbox.ErrNotRunning
	}
	return l.now, nil
}

// attach runs a process in the sandbox that hands PicoD a new line or, where
// the first process is not PicoD, serves it itself.
func (l *link) attach(ctx context.Context) error {
	ours, theirs, err := hostlink.NewFiles()
	if err != nil {
		return err
	}
	defer theirs.Close()
	what, files := "attach", map[int]*os.File{0: theirs[0], 1: theirs[1], 3: theirs[2], 4: theirs[3]}
	if !l.agent {
		what, files = "relay", map[int]*os.File{0: theirs[0], 1: theirs[1]}
	}
	if err := l.run(ctx, what, files); err != nil {
		return errors.Join(err, ours.Close())
	}
	if l.agent {
		return l.connect(ctx, ours, "")
	}
	made := line{}
	if made.trunk, err = trunk.NewDialer(ours.Trunk()); err == nil {
		err = l.use(made)
	}
	err = errors.Join(err, ours.Control().Close())
	if err != nil {
		err = errors.Join(err, ours.Close())
	}
	return err
}

// ask has PicoD do something.
func (l *link) ask(ctx context.Context, req hostlink.Request) error {
	now, err := l.current(ctx)
	if err != nil {
		return err
	}
	return now.control.Call(ctx, req)
}

// dial opens a stream to a port in the sandbox.
func (l *link) dial(ctx context.Context, port uint16) (net.Conn, error) {
	now, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := now.trunk.Dial(ctx, port)
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

// run starts PicoD's program once more in the sandbox, to do something else.
func (l *link) run(ctx context.Context, what string, files map[int]*os.File) error {
	conn, err := client.ConnectTo(l.socket)
	if err != nil {
		return fmt.Errorf("%w: connect to its control socket: %w", sandbox.ErrNotRunning, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	args := control.ExecArgs{
		Filename: agentPath, Argv: []string{agentPath, what}, WorkingDirectory: "/",
		ContainerID: containerID, FilePayload: control.NewFilePayload(files, nil),
	}
	var pid int32
	if err := conn.Call(boot.ContMgrExecuteAsync, &args, &pid); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("start %s in the sandbox: %w", what, err)
	}
	return nil
}

// close ends the line for good.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.now.hangUp()
}
