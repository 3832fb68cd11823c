package manager

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/template"
)

// Store is where a Manager keeps its records.
type Store interface {
	session.Store
	session.Sleepers
	session.Checkpoints
	session.Clocks
}

// Config of a Manager. Fields without a default are required.
type Config struct {
	Store         Store
	Driver        sandbox.Driver
	Templates     template.Source
	Authenticator auth.Authenticator
	// Authorizer says what callers may do, beside their scopes; nil means that there is
	// nothing beside. Whom it refuses is told so before anything is looked up but their
	// own session or checkpoint.
	Authorizer auth.Authorizer
	// Tokens are what the routes of tokens manage. Without, there are none.
	Tokens *auth.Tokens
	// BootstrapKey signs what locks a PicoD to its key.
	BootstrapKey *rsa.PrivateKey
	// RouterKey is what PicoDs of managed sessions are locked to.
	RouterKey *rsa.PublicKey
	// Clock is the time of the sessions in Store, for all that use it; nil means
	// one of the Manager's own. Open makes it go on where it was, unless it is a wall
	// clock.
	Clock *session.Clock
	// Logger; nil means slog.Default().
	Logger *slog.Logger
	// Audit gets what is done here; nil means that nothing is recorded.
	Audit audit.Recorder
	// SessionChanged, when set, is called with every record that the Manager
	// has changed, after the store has it. It must not block.
	SessionChanged func(session.Session)

	// TokenRevoked, when set, is called with the name of every token that is
	// revoked, after the store has it. It must not block. See router.Router.Revoked.
	TokenRevoked func(name string)

	// HoldRequests, when set, makes new requests to a session wait until release
	// is called. With idle it does so only when no request is under way, and
	// else returns false. See router.Router.Hold.
	HoldRequests func(sessionID string, idle bool) (release func(), ok bool)

	// EndToEnd says that the Router carries encrypted connections to sandboxes, so
	// that owners are offered it.
	EndToEnd bool

	// CreateTimeout bounds the making of a session, its pause and its resume;
	// 0 means 2 min.
	CreateTimeout time.Duration
	// InitTimeout bounds the handing over of the key; 0 means 30 s.
	InitTimeout time.Duration
	// DeleteTimeout bounds one attempt to remove a sandbox; 0 means 30 s.
	DeleteTimeout time.Duration
	// PollInterval is how often sessions are looked at for their idle time-out
	// and end of life; 0 means 250 ms.
	PollInterval time.Duration
	// Retention is how long ended sessions are remembered; 0 means 24 h.
	Retention time.Duration
	// CheckpointRetention is how long a checkpoint is kept after its last use;
	// 0 means for ever.
	CheckpointRetention time.Duration
	// MaxSandboxes bounds the sandboxes that exist at a time, without those that
	// are paused; 0 means no bound.
	MaxSandboxes int
	// MemoryBudget bounds the sum of their memory limits, in bytes; 0 means no bound.
	MemoryBudget int64
	// MaxPerOwner bounds the sandboxes of one owner, paused ones too; 0 means no bound.
	MaxPerOwner int
	// MaxCreateRate bounds the sessions and checkpoints that one owner may ask for
	// in a second, on average over ten; 0 means no bound.
	MaxCreateRate int
	// MaxParallelStarts bounds the sandboxes that are being made or resumed at a
	// time, and so those that are being paused or copied; 0 means twice the
	// number of cores.
	MaxParallelStarts int
	// MaxParallelRemovals bounds the sandboxes that are being removed at a time; 0
	// means 8.
	MaxParallelRemovals int
	// Shared says that other processes use Store, which has to be a SharedStore, and
	// the sandboxes of Driver too. Sessions then outlive this process, limits hold for
	// all of them together, MemoryBudget is not looked at, and Clock is a wall clock.
	Shared bool
	// SettleInterval is how often what processes that died left behind is looked for,
	// where sessions are shared; 0 means 1 min.
	SettleInterval time.Duration
	// MakerSilence is for how long a server that is making a session may not be heard of
	// until a repeated request makes it anew, where sessions are shared; 0 means 20 s.
	// It is more than the clocks of the machines differ by.
	MakerSilence time.Duration
	// SettleAge is how old it has to be to count as left behind: longer than the making
	// of any session takes, whatever the clocks of the machines differ by. 0 means 1 min
	// more than twice CreateTimeout.
	SettleAge time.Duration
	// KeepSessions makes Close leave sessions and sandboxes for the next
	// process instead of ending them. Those that are paused it leaves in any case.
	KeepSessions bool
}

// Manager is the control plane. Its methods are safe for concurrent use.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	clock  *session.Clock
	driver sandbox.Full // Config.Driver
	shared SharedStore  // nil unless sessions are shared
	routes http.Handler
	slots  *slots
	rates  *rates
	starts *turns // of making and resuming sandboxes
	saves  *turns // of pausing and copying them
	agreed *auth.Agreements

	base     context.Context // of creations, and pauses between attempts; ends with Close
	cancel   context.CancelFunc
	attempts context.Context // of removals; ends when Close has waited long enough
	abort    context.CancelFunc
	work     sync.WaitGroup // creations and removals
	tries    chan struct{}  // bounds removals that run at a time

	strangers audit.Strangers
	lastCount atomic.Pointer[Usage] // at the last settling; nil before

	mu          sync.Mutex
	closing     bool
	creations   map[string]*creation       // by session id
	transitions map[string]*transition     // by session id
	removals    map[string]*removal        // by sandbox id
	snapshots   map[string]bool            // being made or used, by name
	names       map[checkpointKey]bool     // of checkpoints being made
	unsealed    map[string]session.Session // ended, and not asked for their record yet, by sandbox id
	pools       []sandbox.Pool             // as the driver was told last

	left int // sessions that were due when last looked, but in creation; Run's
}

// parallelRemovals keeps a burst of expiring sessions from taking the whole machine.
const parallelRemovals = 8

// New makes a Manager. It does no I/O.
func New(cfg Config) *Manager {
	setDefault(&cfg.CreateTimeout, 2*time.Minute)
	setDefault(&cfg.InitTimeout, 30*time.Second)
	setDefault(&cfg.DeleteTimeout, 30*time.Second)
	setDefault(&cfg.PollInterval, 250*time.Millisecond)
	setDefault(&cfg.Retention, 24*time.Hour)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Audit == nil {
		cfg.Audit = audit.Nothing{}
	}
	setDefault(&cfg.SettleInterval, time.Minute)
	setDefault(&cfg.MakerSilence, 20*time.Second)
	setDefault(&cfg.SettleAge, 2*cfg.CreateTimeout+time.Minute)
	switch {
	case cfg.Clock != nil:
	case cfg.Shared:
		cfg.Clock = session.NewWallClock()
	default:
		cfg.Clock = session.NewClock()
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = auth.Everybody{}
	}
	if cfg.SessionChanged == nil {
		cfg.SessionChanged = func(session.Session) {}
	}
	if cfg.TokenRevoked == nil {
		cfg.TokenRevoked = func(string) {}
	}
	if cfg.HoldRequests == nil {
		cfg.HoldRequests = func(string, bool) (func(), bool) { return func() {}, true }
	}
	if cfg.MaxParallelStarts <= 0 {
		cfg.MaxParallelStarts = 2 * runtime.NumCPU()
	}
	if cfg.MaxParallelRemovals <= 0 {
		cfg.MaxParallelRemovals = parallelRemovals
	}
	once, _ := cfg.Store.(session.Once)
	base, cancel := context.WithCancel(context.Background())
	attempts, abort := context.WithCancel(context.Background())
	m := &Manager{
		cfg: cfg, log: cfg.Logger, clock: cfg.Clock, driver: sandbox.Complete(cfg.Driver), slots: newSlots(cfg.MaxSandboxes, cfg.MaxPerOwner, cfg.MemoryBudget),
		rates: newRates(cfg.MaxCreateRate), base: base, cancel: cancel, attempts: attempts, abort: abort, tries: make(chan struct{}, cfg.MaxParallelRemovals),
		starts: newTurns(cfg.MaxParallelStarts), saves: newTurns(cfg.MaxParallelStarts), agreed: auth.NewAgreements(once),
		creations: map[string]*creation{}, transitions: map[string]*transition{}, removals: map[string]*removal{},
		unsealed: map[string]session.Session{}, snapshots: map[string]bool{}, names: map[checkpointKey]bool{},
	}
	if cfg.Shared {
		m.shared, _ = cfg.Store.(SharedStore)
	}
	m.routes = m.newRoutes()
	return m
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// ServeHTTP implements http.Handler: the control-plane API. What it does not
// know is answered 404, HEAD included, as older clients expect.
func (m *Manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead { // a ServeMux takes it for a GET
		httpserve.NotFound(w, r)
		return
	}
	m.routes.ServeHTTP(w, r)
}

// Run watches the sessions until ctx ends: idle time-outs, ends of life,
// sandboxes that end by themselves, old records, forgotten checkpoints, and the
// pools of sandboxes that templates want. Open comes first.
func (m *Manager) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loops.Go(func() { m.watchExits(ctx) })
	loops.Go(func() { m.purgeLoop(ctx) })
	loops.Go(func() { m.warmLoop(ctx) })
	loops.Go(func() { m.settleLoop(ctx) })
	idle := newDozes(m.cfg.MaxParallelStarts)
	poll := time.NewTicker(m.cfg.PollInterval)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			m.followClock(ctx)
			m.reap(ctx)
			m.pauseIdle(ctx, idle)
		}
	}
}

// Close stops the Manager: no session is created any more, those in creation are
// undone, those on their way to sleep or back arrive, and, unless
// Config.KeepSessions or Shared is set, all that are not paused end. It returns
// when all is removed or ctx ends, with an error when something is left for
// the next Open. Run has to have returned.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closing = true
	for _, c := range m.creations {
		c.cancel(errClosing)
	}
	m.mu.Unlock()
	err := errors.Join(m.waitCreations(ctx), m.waitTransitions(ctx))
	if !m.cfg.Shared { // else others use the pools
		m.driver.Warm(nil)
	}
	if !m.cfg.KeepSessions && !m.cfg.Shared {
		err = errors.Join(err, m.endAll(ctx))
	}
	m.cancel()
	stop := context.AfterFunc(ctx, m.abort)
	m.work.Wait()
	stop()
	m.abort()
	if err != nil {
		return fmt.Errorf("close manager: %w", err)
	}
	return nil
}

func (m *Manager) waitCreations(ctx context.Context) error {
	for {
		c := m.anyCreation()
		if c == nil {
			return nil
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Manager) anyCreation() *creation {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.creations {
		return c
	}
	return nil
}

// waitTransitions lets sessions arrive where they are going.
func (m *Manager) waitTransitions(ctx context.Context) error {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.transitions))
	m.mu.Unlock()
	for _, t := range all {
		select {
		case <-t.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
