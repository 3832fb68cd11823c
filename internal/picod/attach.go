package picod

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/hostlink"
)

// attachSocket is where another line is attached. It is in the abstract name
// space of the sandbox, and taken before any user code runs; who connects has
// to be root.
const attachSocket = "@agentcube-host"

// attachPatience bounds one attaching.
const attachPatience = 10 * time.Second

func listenAttach() (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: attachSocket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the host: %w", err)
	}
	return l, nil
}

// acceptLines serves hosts that attach a line, each in place of the one before.
func (h *host) acceptLines(l *net.UnixListener) {
	stop := make(chan struct{})
	h.wg.Go(func() {
		select {
		case <-h.ctx.Done():
		case <-stop:
		}
		_ = l.Close()
	})
	defer close(stop)
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if h.ctx.Err() == nil {
				h.srv.log.Error("host line cannot be attached any more", "error", err)
			}
			return
		}
		line, err := receiveLine(conn)
		if err != nil {
			h.srv.log.Warn("host line refused", "error", err)
			continue
		}
		h.mu.Lock()
		h.dropTrunk()
		_ = h.attached.Close()
		h.attached = line
		h.mu.Unlock()
		h.wg.Go(func() { h.serveControl(line) })
	}
}

// receiveLine takes the four pipes that Attach sends, and closes the connection.
func receiveLine(conn *net.UnixConn) (line hostlink.Files, err error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(attachPatience)); err != nil {
		return line, fmt.Errorf("bound attaching: %w", err)
	}
	if err := fromRoot(conn); err != nil {
		return line, err
	}
	oob := make([]byte, unix.CmsgSpace(4*len(line)))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return line, fmt.Errorf("receive line: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return line, errors.Join(errors.New("receive line: no descriptors"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(line) {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return line, errors.Join(fmt.Errorf("receive line: %d descriptors, want %d", len(fds), len(line)), err)
	}
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		if err = errors.Join(err, unix.SetNonblock(fd, true)); err != nil {
			err = fmt.Errorf("receive line: %w", err)
		}
		line[i] = os.NewFile(uintptr(fd), "host line")
	}
	if err == nil {
		_, err = conn.Write([]byte{0})
	}
	if err != nil {
		return hostlink.Files{}, errors.Join(err, line.Close())
	}
	return line, nil
}

// fromRoot refuses everybody else.
func fromRoot(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("look who connects: %w", err)
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("look who connects: %w", err)
	}
	if peerErr != nil {
		return fmt.Errorf("look who connects: %w", peerErr)
	}
	if peer.Uid != 0 {
		return fmt.Errorf("user %d is not root", peer.Uid)
	}
	return nil
}

// Attach hands the line at file descriptors 0, 1, 3 and 4, in the order of
// hostlink.Files, to the PicoD of this sandbox. The driver runs it in there.
func Attach() error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: attachSocket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("connect to the agent: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(attachPatience)); err != nil {
		return fmt.Errorf("bound attaching: %w", err)
	}
	if _, _, err := conn.WriteMsgUnix([]byte{0}, unix.UnixRights(0, 1, 3, 4), nil); err != nil {
		return fmt.Errorf("send line: %w", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for the agent: %w", err)
	}
	return nil
}
