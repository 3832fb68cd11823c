package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis/address"
)

const (
	// DefaultPrefix begins the names of all keys.
	DefaultPrefix = "agentcube:"
	// DefaultTimeout is how long one answer of the server may take.
	DefaultTimeout = 2 * time.Second
	// patience is how many time-outs long a call tries to reach the server.
	patience = 3
)

// Config of a Store. URL is required.
type Config struct {
	// URL is the address of the server; see package address.
	URL string
	// PasswordFile holds the password, which a line end may follow. It is read at
	// every connection, so that passwords can change; "" means that there is none.
	PasswordFile string
	// CAFile holds the certificates, in PEM, that those of the server are signed
	// with; "" means those that the machine trusts.
	CAFile string
	// CertFile and KeyFile are what the client shows, in PEM. They are read at
	// every connection; both "" mean that it shows none.
	CertFile, KeyFile string
	// Prefix begins the names of all keys; "" means DefaultPrefix. Stores with
	// different ones can share a server.
	Prefix string
	// Timeout is how long one answer of the server may take; 0 means
	// DefaultTimeout. A call fails when there was none for three times that.
	Timeout time.Duration
}

// Store is a session.Store on a Redis or Valkey server, a cluster of them, or a
// master that sentinels watch. It also implements session.Sleepers,
// session.Checkpoints, session.Clocks, session.Pinger, session.Once,
// session.Rates, session.Seats and auth.TokenStore.
type Store struct {
	cfg     Config
	keys    keys
	scripts scripts
	gate    gate

	mu     sync.Mutex
	client valkey.Client
	closed bool
}

var (
	_ session.Store       = (*Store)(nil)
	_ session.Sleepers    = (*Store)(nil)
	_ session.Checkpoints = (*Store)(nil)
	_ session.Clocks      = (*Store)(nil)
	_ session.Pinger      = (*Store)(nil)
	_ session.Once        = (*Store)(nil)
	_ session.Rates       = (*Store)(nil)
	_ session.Seats       = (*Store)(nil)
	_ session.Living      = (*Store)(nil)
	_ auth.TokenStore     = (*Store)(nil)
)

// New returns a store on the server that cfg names. No other method may be
// called before Open.
func New(cfg Config) *Store {
	cfg.Prefix = cmp.Or(cfg.Prefix, DefaultPrefix)
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	return &Store{cfg: cfg, keys: keys{cfg.Prefix}, scripts: newScripts()}
}

// ServerError is a server that cannot be used as a session store.
type ServerError struct {
	Server  string // where it is
	Problem string // completes the sentence "<server> ..."
	Fix     string
	Err     error // the cause, or nil
}

// Error implements error.
func (e *ServerError) Error() string {
	if e.Err != nil {
		return e.Server + " " + e.Problem + ": " + e.Err.Error()
	}
	return e.Server + " " + e.Problem
}

// Hint says what to do about the problem.
func (e *ServerError) Hint() string { return e.Fix }

// Unwrap returns the cause.
func (e *ServerError) Unwrap() error { return e.Err }

// Open connects to the server, waiting a moment for one that is just starting,
// and checks that it can be used: what stands in the way of that is a
// *ServerError. It leaves nothing behind on the server.
func (s *Store) Open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open session store: %w", errors.Join(err, s.Close()))
		}
	}()
	if strings.ContainsAny(s.cfg.Prefix, "{}") {
		return errors.New("the prefix of keys must not have braces in it")
	}
	to, err := address.Parse(s.cfg.URL)
	if err != nil {
		return fmt.Errorf("the URL of the server %w", err)
	}
	opt, err := s.options(to)
	if err != nil {
		return err
	}
	// In a cluster one server may be away while the others are not.
	s.gate.open = to.Kind == address.Cluster
	client, err := s.connect(ctx, to, opt)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.client = client
	s.mu.Unlock()
	return s.inspect(ctx, to)
}

// Close ends the store. Methods that are called later fail with
// session.ErrUnavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil && !s.closed {
		s.client.Close()
	}
	s.closed = true
	return nil
}

// connection is the client to ask; valkey.ErrClosing when the store is closed.
func (s *Store) connection() (valkey.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.client == nil {
		return nil, valkey.ErrClosing
	}
	return s.client, nil
}

// Ping implements session.Pinger by writing one key. In a cluster that speaks for
// one of its servers, and for whether the cluster takes writes at all.
func (s *Store) Ping(ctx context.Context) error {
	return s.exchange(ctx, "ping session store", func(ctx context.Context, c valkey.Client) error {
		return c.Do(ctx, c.B().Set().Key(s.keys.ping()).Value("1").ExSeconds(60).Build()).Error()
	})
}

// Reserve makes the keys of the store one holder's, unless they are another's, and
// returns who has them. It is for those whose sandboxes are on one machine; who
// shares the store does without.
func (s *Store) Reserve(ctx context.Context, holder string) (string, error) {
	var has string
	err := s.exchange(ctx, "reserve session store", func(ctx context.Context, c valkey.Client) (err error) {
		has, err = s.scripts.claim.Exec(ctx, c, []string{s.ReserveKey()}, []string{holder, ""}).ToString()
		return err
	})
	return has, err
}

// ReserveKey is the key that says who has reserved the store.
func (s *Store) ReserveKey() string { return s.keys.prefix + "holder" }

// inspect refuses a server that would lose sessions or does not know the commands
// that are needed.
func (s *Store) inspect(ctx context.Context, to address.Address) error {
	var info string
	err := s.exchange(ctx, "look at the server", func(ctx context.Context, c valkey.Client) (err error) {
		info, err = c.Do(ctx, c.B().Info().Section("server", "memory").Build()).ToString()
		return err
	})
	var refused *valkey.ValkeyError
	switch {
	case errors.As(err, &refused) && strings.HasPrefix(refused.Error(), "NOPERM"):
		return nil // it shows itself when it is used
	case err != nil:
		return err
	}
	facts := map[string]string{}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		facts[name] = value
	}
	if v := facts["redis_version"]; v != "" && older(v, 6, 2) {
		return &ServerError{
			Server: to.String(), Problem: "is version " + v + ", which is too old",
			Fix: "use Redis 6.2 or later, or Valkey",
		}
	}
	if policy := facts["maxmemory_policy"]; strings.HasPrefix(policy, "allkeys-") {
		return &ServerError{
			Server: to.String(), Problem: "throws away sessions when its memory is full (maxmemory-policy " + policy + ")",
			Fix: "set maxmemory-policy to noeviction",
		}
	}
	return nil
}

// older reports whether a version is before major.minor; what cannot be read
// is not.
func older(version string, major, minor int) bool {
	var a, b int
	if n, err := fmt.Sscanf(version, "%d.%d", &a, &b); n != 2 || err != nil {
		return false
	}
	return a < major || a == major && b < minor
}
