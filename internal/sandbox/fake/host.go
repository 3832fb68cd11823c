package fake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	watchers  map[*Driver]struct{}
}

// NewHost makes a machine without sandboxes. serve says what listens inside a
// sandbox made from a spec, by port; nil means that only GET /health on
// sandbox.AgentPort is answered.
func NewHost(serve func(sandbox.Spec) map[uint16]http.Handler) *Host {
	if serve == nil {
		serve = func(sandbox.Spec) map[uint16]http.Handler {
			return map[uint16]http.Handler{sandbox.AgentPort: http.HandlerFunc(health)}
		}
	}
	return &Host{serve: serve, sandboxes: map[string]*box{}, watchers: map[*Driver]struct{}{}}
}

func health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path != "/health" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"ok","service":"PicoD","version":"0.0.1","uptime":"1s"}`)
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
	b.info.Exit = &exit
	watchers := make([]*Driver, 0, len(h.watchers))
	for d := range h.watchers {
		watchers = append(watchers, d)
	}
	h.mu.Unlock()
	b.stop()
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
	h.mu.Unlock()
	if b != nil {
		b.stop()
	}
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

// box is one sandbox: a server per port on an in-memory listener.
type box struct {
	spec  sandbox.Spec
	info  sandbox.Sandbox // Exit is guarded by Host.mu
	ports map[uint16]*pipeListener
	srv   []*http.Server
	wg    sync.WaitGroup

	once sync.Once
	done chan struct{}
}

func startBox(spec sandbox.Spec, ports map[uint16]http.Handler) *box {
	b := &box{
		spec:  spec,
		info:  sandbox.Sandbox{ID: spec.ID, CreatedAt: time.Now().UTC(), Labels: cloneMap(spec.Labels), Isolation: Isolation},
		ports: map[uint16]*pipeListener{},
		done:  make(chan struct{}),
	}
	for port, h := range ports {
		l := newPipeListener(port)
		srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		b.ports[port] = l
		b.srv = append(b.srv, srv)
		b.wg.Go(func() { _ = srv.Serve(l) })
	}
	return b
}

func (b *box) describe() sandbox.Sandbox {
	s := b.info
	s.Labels = cloneMap(b.info.Labels)
	if b.info.Exit != nil {
		e := *b.info.Exit
		s.Exit = &e
	}
	return s
}

// stop cuts every connection and waits until nothing listens any more.
func (b *box) stop() {
	b.once.Do(func() {
		close(b.done)
		for _, s := range b.srv {
			_ = s.Close()
		}
	})
	b.wg.Wait()
}

func (b *box) dial(ctx context.Context, port uint16) (net.Conn, error) {
	l, ok := b.ports[port]
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

func cloneMap(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
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
