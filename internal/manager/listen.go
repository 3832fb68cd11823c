package manager

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	// Pauses between two attempts to reach a server.
	firstKnock = 5 * time.Millisecond
	lastKnock  = 250 * time.Millisecond
	// knockTimeout bounds one of them: on a network it may get no answer at all.
	knockTimeout = 2 * time.Second
)

// awaitServer waits until a new sandbox in which PicoD does not serve takes
// connections on every port that requests are carried to. A copy of a session is
// as that one was, and is not waited for. The wait is half of what making a session
// may take, so that its maker still hears why there is none.
func (m *Manager) awaitServer(ctx context.Context, p plan) error {
	if p.record.Auth != api.AuthNone || p.spec.Snapshot != "" {
		return nil
	}
	limit := m.cfg.CreateTimeout / 2
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, port := range ports(p.record.EntryPoints) {
		err := m.awaitPort(timed, p.record.SandboxID, port)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case timed.Err() != nil:
			return notListening(http.StatusGatewayTimeout, "the template's server did not listen on port %d within %v", port, limit).
				WithHint("it has to listen on all addresses (0.0.0.0), at the port that the template names; " +
					"where it takes longer to start, the operator can raise sandboxCreateTimeout, of which it has half").WithCause(err)
		default:
			return notListening(http.StatusBadGateway, "the template's server ended before it listened on port %d", port).
				WithHint("%s", m.whyEnded(ctx, p.record)).WithCause(err)
		}
	}
	return nil
}

func notListening(status int, format string, args ...any) *api.Error {
	return api.Errorf(status, api.CodeServerNotListening, format, args...)
}

// awaitPort waits until a port takes a connection. Its error is that of the last
// attempt when ctx ends, and of a sandbox that has ended.
func (m *Manager) awaitPort(ctx context.Context, sandboxID string, port uint16) error {
	for pause := firstKnock; ; pause = min(2*pause, lastKnock) {
		err := m.knock(ctx, sandboxID, port)
		if err == nil {
			return nil
		}
		if !errors.Is(err, sandbox.ErrRefused) {
			sb, gone := m.cfg.Driver.Get(ctx, sandboxID)
			if sb.Exit != nil || errors.Is(gone, sandbox.ErrNotFound) {
				return err
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func (m *Manager) knock(ctx context.Context, sandboxID string, port uint16) error {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	conn, err := m.cfg.Driver.Dial(ctx, sandboxID, port)
	if err != nil {
		return err
	}
	return conn.Close()
}

// whyEnded is a next step for whoever's server has ended, with what is known of its
// end, which is nothing that the server printed. The watch over exits may have
// removed the sandbox meanwhile: then the record of its session says it.
func (m *Manager) whyEnded(ctx context.Context, rec session.Session) string {
	var why string
	if sb, err := m.cfg.Driver.Get(ctx, rec.SandboxID); err == nil && sb.Exit != nil {
		_, why = exitFate(*sb.Exit)
	} else if now, err := m.cfg.Store.Get(ctx, rec.ID); err == nil && now.Ended() {
		why = now.Reason
	}
	const try = "run its command in a session of the same image, which shows what it prints"
	if why == "" {
		return try
	}
	return why + "; " + try
}

// ports are those of entry points, each once.
func ports(from []api.EntryPoint) []uint16 {
	var out []uint16
	for _, e := range from {
		port, ok := portOf(e)
		if ok && !slices.Contains(out, port) {
			out = append(out, port)
		}
	}
	return out
}

func portOf(e api.EntryPoint) (uint16, bool) {
	_, text, err := net.SplitHostPort(e.Endpoint)
	if err != nil {
		return 0, false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil
}
