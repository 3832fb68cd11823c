package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Host stands for the machine that sandboxes run on. Its methods are safe for
// concurrent use. The zero value is not usable; see NewHost.
type Host struct {
	serve func(sandbox.Spec) map[uint16]http.Handler

	mu        sync.Mutex
	sandboxes map[string]*box
	snapshots map[string]*snapshot
	watchers  map[*Driver]struct{}
}

// Copier is a handler with state that a snapshot keeps. The state of any other
// handler is kept by a pause, but a sandbox made from a snapshot has a new one.
type Copier interface {
	http.Handler
	// Copy returns a handler with the same state, for a sandbox made from spec,
	// that waits for its session key.
	Copy(spec sandbox.Spec) http.Handler
}

// NewHost makes a machine without sandboxes. serve says what listens inside a
// sandbox made from a spec, by port; nil means an Agent on sandbox.AgentPort.
func NewHost(serve func(sandbox.Spec) map[uint16]http.Handler) *Host {
	if serve == nil {
		serve = func(spec sandbox.Spec) map[uint16]http.Handler {
			return map[uint16]http.Handler{sandbox.AgentPort: NewAgent(spec)}
		}
	}
	return &Host{
		serve: serve, sandboxes: map[string]*box{}, snapshots: map[string]*snapshot{}, watchers: map[*Driver]struct{}{},
	}
}

// Exit ends a running sandbox from within, as a crash or the memory limit
// would. It fails with sandbox.ErrNotFound or sandbox.ErrNotRunning.
func (h *Host) Exit(id string, reason sandbox.ExitReason, detail string) error {
	h.mu.Lock()
	b, ok := h.sandboxes[id]
	if !ok {
		h.mu.Unlock()
		return fmt.Errorf("exit sandbox %s: %w", id, sandbox.ErrNotFound)
	}
	if b.info.Exit != nil {
		h.mu.Unlock()
		return fmt.Errorf("exit sandbox %s: %w", id, sandbox.ErrNotRunning)
	}
	exit := sandbox.Exit{ID: id, Reason: reason, Detail: detail, At: time.Now().UTC()}
	b.info.Exit, b.info.Paused = &exit, false
	running := b.running
	watchers := make([]*Driver, 0, len(h.watchers))
	for d := range h.watchers {
		watchers = append(watchers, d)
	}
	h.mu.Unlock()
	running.stop()
	for _, d := range watchers {
		d.exits.add(exit)
	}
	return nil
}

// Lose removes a sandbox without a trace, as a reboot would.
func (h *Host) Lose(id string) {
	h.mu.Lock()
	b := h.sandboxes[id]
	delete(h.sandboxes, id)
	var running *servers
	if b != nil {
		running = b.running
	}
	h.mu.Unlock()
	running.stop()
}

// IDs lists the sandboxes on the machine, ended ones included, sorted.
func (h *Host) IDs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make([]string, 0, len(h.sandboxes))
	for id := range h.sandboxes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Spec returns what a sandbox was made from.
func (h *Host) Spec(id string) (sandbox.Spec, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.sandboxes[id]
	if !ok {
		return sandbox.Spec{}, false
	}
	return b.spec, true
}

func (h *Host) list() []sandbox.Sandbox {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]sandbox.Sandbox, 0, len(h.sandboxes))
	for _, b := range h.sandboxes {
		out = append(out, b.describe())
	}
	slices.SortFunc(out, func(a, b sandbox.Sandbox) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// box is one sandbox. Host.mu guards all that changes.
type box struct {
	spec     sandbox.Spec
	info     sandbox.Sandbox
	handlers map[uint16]http.Handler
	running  *servers // nil while paused
	pausing  bool
	turn     chan struct{} // held by what changes or copies the state
}

func newBox(spec sandbox.Spec, handlers map[uint16]http.Handler) *box {
	return &box{
		spec: spec, handlers: handlers, running: serve(handlers), turn: make(chan struct{}, 1),
		info: sandbox.Sandbox{ID: spec.ID, CreatedAt: time.Now().UTC(), Labels: maps.Clone(spec.Labels), Isolation: Isolation},
	}
}

func (b *box) describe() sandbox.Sandbox {
	s := b.info
	s.Labels = maps.Clone(b.info.Labels)
	if b.info.Exit != nil {
		e := *b.info.Exit
		s.Exit = &e
	}
	return s
}

// servers are a server per port, each on an in-memory listener.
type servers struct {
	ports map[uint16]*pipeListener
	srv   []*http.Server
	wg    sync.WaitGroup
	once  sync.Once
}

func serve(handlers map[uint16]http.Handler) *servers {
	s := &servers{ports: map[uint16]*pipeListener{}}
	for port, h := range handlers {
		l := newPipeListener(port)
		srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		s.ports[port] = l
		s.srv = append(s.srv, srv)
		s.wg.Go(func() { _ = srv.Serve(l) })
	}
	return s
}

// stop cuts every connection and waits until nothing listens any more.
func (s *servers) stop() {
	if s == nil {
		return
	}
	s.once.Do(func() {
		for _, srv := range s.srv {
			_ = srv.Close()
		}
		for _, l := range s.ports {
			_ = l.Close() // also where Serve has not begun
		}
	})
	s.wg.Wait()
}

func (s *servers) dial(ctx context.Context, port uint16) (net.Conn, error) {
	l, ok := s.ports[port]
	if !ok {
		return nil, sandbox.ErrRefused
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, errors.Join(sandbox.ErrNotRunning, client.Close(), server.Close())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), client.Close(), server.Close())
	}
}

// pipeListener hands in-memory connections to a server.
type pipeListener struct {
	port   uint16
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newPipeListener(port uint16) *pipeListener {
	return &pipeListener{port: port, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(l.port)}
}
