package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// Dialer reaches a port inside the sandbox of a session. Its errors match those of
// sandbox.Driver.Dial.
type Dialer interface {
	Dial(ctx context.Context, rec session.Session, port uint16) (net.Conn, error)
}

// ByID reaches sandboxes through what finds them by their id.
type ByID struct {
	// Sandboxes is what finds them; every sandbox.Driver does.
	Sandboxes interface {
		Dial(ctx context.Context, sandboxID string, port uint16) (net.Conn, error)
	}
}

// Dial implements Dialer.
func (d ByID) Dial(ctx context.Context, rec session.Session, port uint16) (net.Conn, error) {
	return d.Sandboxes.Dial(ctx, rec.SandboxID, port)
}

// ByAddress reaches sandboxes by TCP, at the addresses that their records tell. The zero
// value is ready to use.
type ByAddress struct{}

// Dial implements Dialer. Only an IP address is dialled: no name is looked up.
func (ByAddress) Dial(ctx context.Context, rec session.Session, port uint16) (net.Conn, error) {
	if rec.Address == "" {
		return nil, fmt.Errorf("dial sandbox %s: %w: its session has no address", rec.SandboxID, sandbox.ErrNotFound)
	}
	ip, err := netip.ParseAddr(rec.Address)
	if err != nil {
		return nil, fmt.Errorf("dial sandbox %s: %w", rec.SandboxID, err)
	}
	// A node that is gone without a word is noticed within half a minute.
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), strconv.Itoa(int(port))))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		err = fmt.Errorf("%w: %w", sandbox.ErrRefused, err)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		err = fmt.Errorf("%w: %w", sandbox.ErrNotRunning, err)
	}
	if err != nil {
		return nil, fmt.Errorf("dial sandbox %s: %w", rec.SandboxID, err)
	}
	return conn, nil
}
