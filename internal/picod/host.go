package picod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/picod/journal"
	"github.com/volcano-sh/agentcube/internal/picod/token"
	"github.com/volcano-sh/agentcube/internal/trunk"
)

// basePoll is how often the line that PicoD was started with is looked at
// while a snapshot is about to be taken from another line.
const basePoll = 2 * time.Millisecond

// host is PicoD's side of the line to the host. The line it was started with,
// base, is never closed: in a sandbox restored from a snapshot a new host is at
// its other end. When the host has lost its end, because AgentCube came back
// as a new process, it attaches another line.
type host struct {
	srv    *Server
	base   hostlink.Files
	direct *trunk.Listener

	ctx  context.Context // ends with close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	attached hostlink.Files     // the zero value: none
	endTrunk context.CancelFunc // nil: there is no trunk
	tap      *hostlink.Tap
	endWatch context.CancelFunc // nil: base is not being watched
	watched  chan struct{}      // closed when the last watching is over; nil: there was none
}

// startHost serves the host on the line of the configuration, and waits for
// others at the attach socket. Streams to PicoD's own port are accepted from
// the returned listener.
func (s *Server) startHost(ctx context.Context) (*host, error) {
	h := &host{srv: s, base: *s.cfg.Host, direct: trunk.NewListener()}
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	socket, err := listenAttach()
	if err != nil {
		h.stop()
		return nil, err
	}
	h.wg.Go(func() { h.acceptLines(socket) })
	h.wg.Go(func() { h.serveControl(h.base) })
	return h, nil
}

// close ends the trunk and everything else, the pipes of the base included.
func (h *host) close() {
	h.stop()
	h.mu.Lock()
	h.dropTrunk()
	_ = h.attached.Close()
	h.mu.Unlock()
	_ = h.base.Close()
	h.wg.Wait()
}

// serveControl answers the host on one line until it ends.
func (h *host) serveControl(line hostlink.Files) {
	err := hostlink.Serve(line.Control(), func(req hostlink.Request) error { return h.handle(line, req) })
	if h.ctx.Err() == nil {
		h.srv.log.Info("host line ended", "cause", err.Error())
	}
}

func (h *host) handle(line hostlink.Files, req hostlink.Request) error {
	switch req.Op {
	case hostlink.OpConnect:
		if req.Hostname != "" {
			if err := unix.Sethostname([]byte(req.Hostname)); err != nil {
				return fmt.Errorf("set host name: %w", err)
			}
		}
		return h.connect(line, req.Nonce)
	case hostlink.OpAssume:
		if req.Identity == nil {
			return errors.New("identity is missing")
		}
		// A line that was attached later may be that of a program which is root in the
		// sandbox, as a template can have it.
		if line != h.base {
			return errors.New("identities are taken on the first line alone")
		}
		return h.srv.assume(*req.Identity)
	case hostlink.OpPrepare:
		return h.prepare(line, req.Complete)
	case hostlink.OpContinue:
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.endWatch != nil {
			h.endWatch()
			h.endWatch = nil
		}
		return nil
	}
	return fmt.Errorf("operation %q is not known", req.Op)
}

// connect begins a trunk on a line, in place of the one there was. The host
// sends nothing on it before this is answered: until then the old one reads.
func (h *host) connect(line hostlink.Files, nonce []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropTrunk()
	tap := hostlink.NewTap(line.Trunk())
	if _, err := tap.Write(nonce); err != nil {
		return errors.Join(fmt.Errorf("greet the host: %w", err), tap.Close())
	}
	ctx, cancel := context.WithCancel(h.ctx)
	h.tap, h.endTrunk = tap, cancel
	h.wg.Go(func() {
		defer cancel()
		err := hostlink.AwaitNonce(tap, nonce)
		if err == nil {
			err = trunk.Serve(ctx, tap, h.carry)
		}
		if err != nil && ctx.Err() == nil {
			h.srv.log.Warn("trunk ended", "error", err)
		}
	})
	return nil
}

// dropTrunk ends the trunk in use; the line is free when it returns. The
// streams' handlers may take a moment longer.
func (h *host) dropTrunk() {
	if h.tap == nil {
		return
	}
	h.endTrunk()
	if err := h.tap.Close(); err != nil && h.ctx.Err() == nil {
		h.srv.log.Warn("trunk not closed", "error", err)
	}
	h.tap = nil
}

// carry is a trunk.Handler: PicoD's own port is served directly.
func (h *host) carry(ctx context.Context, port uint16, accept func() (net.Conn, error)) error {
	if int(port) == h.srv.cfg.Port {
		return h.direct.Deliver(ctx, port, accept)
	}
	return trunk.Loopback(ctx, port, accept)
}

// prepare makes ready for a snapshot.
func (h *host) prepare(line hostlink.Files, complete bool) error {
	if complete {
		if err := h.srv.Prepared(h.ctx); err != nil {
			return fmt.Errorf("wait for what is kept ready: %w", err)
		}
	}
	if err := h.srv.Prepared(h.ctx); err != nil {
		return fmt.Errorf("prepare commands: %w", err)
	}
	// Pages that the heap does not need would be written out with the others.
	debug.FreeOSMemory()
	if line == h.base {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.endWatch != nil {
		return nil
	}
	// The line in use will not be there in what is restored from the snapshot.
	ctx, cancel := context.WithCancel(h.ctx)
	h.endWatch = cancel
	before, over := h.watched, make(chan struct{})
	h.watched = over
	h.wg.Go(func() {
		defer close(over)
		defer cancel()
		if before != nil {
			<-before
		}
		h.watchBase(ctx)
	})
	return nil
}

// watchBase serves the base line as soon as a host is at its other end.
func (h *host) watchBase(ctx context.Context) {
	tick := time.NewTicker(basePoll)
	defer tick.Stop()
	met := false
	for ctx.Err() == nil && !met {
		// Without an end over there it returns at once.
		_ = hostlink.Serve(h.base.Control(), func(req hostlink.Request) error {
			if !met {
				met = true
				h.baseMet(ctx)
			}
			return h.handle(h.base, req)
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// baseMet ends the watching: this is what was restored. Once the host at the base
// has gone too, the next snapshot needs a watch of its own.
func (h *host) baseMet(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() == nil {
		h.endWatch = nil
	}
}

// assume makes this sandbox another one, for a session of its own.
func (s *Server) assume(id hostlink.Identity) error {
	cfg := token.Identity{SandboxID: id.SandboxID}
	if id.BootstrapKey != "" {
		key, err := token.ParseKey([]byte(id.BootstrapKey))
		if err != nil {
			return fmt.Errorf("read bootstrap key: %w", err)
		}
		cfg.Bootstrap = key
	}
	if err := s.gate.Assume(cfg); err != nil {
		return err
	}
	s.journal.Store(new(journal.Journal))
	if err := unix.Sethostname([]byte(id.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// An image that has none, or that cannot be written, keeps what it has.
	err := replaceFile("/etc/machine-id", id.MachineID+"\n")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("set machine id: %w", err)
	}
	return nil
}

// replaceFile changes a file for all who open it from now on. Nobody finds it
// half written, and a link that user code left there is not followed.
func replaceFile(name, text string) error {
	tmp := name + ".picod"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
