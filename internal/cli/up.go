package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/image"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/metrics"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/template"
)

// dataDirMode lets the processes of sandboxes, which are not root, pass
// through to what is theirs; what is secret in there has a mode of its own.
const dataDirMode = 0o711

// endTimeout bounds the ending of all sessions at shutdown.
const endTimeout = time.Minute

// upSettings are the settings that `up` takes as flags.
func upSettings() []string {
	return []string{
		"listen", "allowNonLoopback", "allowedHosts", "tlsCertFile", "tlsKeyFile", "tlsClientCaFile", "tlsClientNames", "dataDir", "templateDir", "tokenFile", "logLevel", "logFormat",
		"oidcIssuer", "oidcAudience", "oidcRoleClaim", "oidcRequiredRole", "oidcAdminRole", "oidcCaFile",
		"store", "redisUrl", "redisPasswordFile", "redisCaFile", "redisCertFile", "redisKeyFile", "redisPrefix", "redisTimeout",
		"defaultImage", "platform", "maxSandboxes", "memoryBudget", "standby", "snapshotBudget", "maxSessionsPerOwner",
		"audit", "auditContent", "auditMaxSize", "maxConcurrentRequests", "maxConnections", "maxRequestsPerOwner", "maxCreateRatePerOwner", "maxParallelStarts",
		"metricsListen", "tracing", "tracingEndpoint", "tracingSampleRatio",
		"sandboxCreateTimeout", "shutdownTimeout", "endedRetention",
		"checkpointRetention", "keepSessions",
	}
}

func newUp(a *app) *cobra.Command {
	var archive string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run all of AgentCube on this machine, in the foreground",
		Long: "Up serves both planes on one address until it gets SIGINT or SIGTERM. It then takes no\n" +
			"more requests, lets those under way finish, and ends all sessions that are not\n" +
			"paused, unless --keep-sessions. A second signal ends it at once; the next start cleans up.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.cfg.Validate(); err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return withHint(errors.New("start AgentCube: sandboxes need namespaces and control groups, which only root can make"),
					"sudo agentcube up")
			}
			return newServer(a).run(cmd.Context(), archive)
		},
	}
	a.cfg.BindFlags(cmd.Flags(), upSettings()...)
	cmd.Flags().StringVar(&archive, "image-archive", "", "import this `file` as the default image if that is missing")
	return cmd
}

// server is the one process that holds all parts.
type server struct {
	a   *app
	cfg *config.Config
	log *slog.Logger

	web       *httpserve.Server
	lock      *os.File
	store     store
	images    *image.Store
	templates *template.Directory
	driver    *gvisor.Driver
	budget    int64 // memory of all sandboxes together, in bytes
	manager   *manager.Manager
	router    *router.Router
	audit     audit.Recorder
	telemetry *telemetry
}

func newServer(a *app) *server { return &server{a: a, cfg: a.cfg, log: a.serverLogger()} }

// serverLogger logs to stderr as the settings say.
func (a *app) serverLogger() *slog.Logger {
	opts := &slog.HandlerOptions{Level: a.cfg.LogLevel}
	if a.verbose {
		opts.Level = min(a.cfg.LogLevel, slog.LevelDebug)
	}
	if a.cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(a.Stderr, opts))
}

// run starts the parts from the inside out, serves until ctx ends, and stops
// them in the opposite order.
func (s *server) run(ctx context.Context, archive string) (err error) {
	for _, warning := range s.cfg.Warnings() {
		s.log.Warn("check the settings", "warning", warning)
	}
	var cleanup []func() error
	defer func() {
		for i := len(cleanup) - 1; i >= 0; i-- {
			err = errors.Join(err, cleanup[i]())
		}
	}()
	// First what a second start fails at, before it touches anything.
	s.web = &httpserve.Server{
		Addr: s.cfg.Listen, Logger: s.log, DrainTimeout: s.cfg.ShutdownTimeout, MaxConnections: s.cfg.MaxConnections,
		Handler: http.NotFoundHandler(),
	}
	if err := s.web.Listen(ctx); err != nil {
		return err
	}
	served := false
	cleanup = append(cleanup, func() error {
		if served {
			return nil
		}
		return unlisten(s.web)
	})
	for _, step := range []func(context.Context) (func() error, error){
		s.checkMachine,
		s.takeDataDir,
		s.detachStdio,
		func(ctx context.Context) (_ func() error, err error) {
			s.web.TLS, err = servedTLS(ctx, s.cfg, s.log)
			return nil, err
		},
		func(ctx context.Context) (undo func() error, err error) {
			s.telemetry, undo, err = openTelemetry(ctx, s.cfg, s.log, s.a.Version, nil)
			return undo, err
		},
		s.openStore,
		s.openAudit,
		func(ctx context.Context) (func() error, error) { return nil, s.openImages(ctx, archive) },
		func(ctx context.Context) (func() error, error) { return nil, s.loadTemplates(ctx) },
		s.openDriver,
		s.openPlanes,
	} {
		undo, err := step(ctx)
		if undo != nil {
			cleanup = append(cleanup, undo)
		}
		if err != nil {
			return err
		}
	}
	s.web.Handler, s.web.OnTLS = s.handler(), s.router.Splice
	s.web.OnDrain = func() {
		s.stopping()
		s.router.Drain()
	}
	served = true
	return s.serve(ctx)
}

// unlisten gives up the address of a server that never served.
func unlisten(web *httpserve.Server) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return web.Run(ctx)
}

// takeDataDir makes the data folder and sees to it that one process uses it.
func (s *server) takeDataDir(context.Context) (func() error, error) {
	if err := os.MkdirAll(s.cfg.DataDir, dataDirMode); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	path := filepath.Join(s.cfg.DataDir, "agentcube.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		holder, rerr := io.ReadAll(io.LimitReader(f, 32))
		if !errors.Is(err, unix.EWOULDBLOCK) || rerr != nil {
			return nil, fmt.Errorf("lock data folder: %w", err)
		}
		return nil, withHint(
			fmt.Errorf("lock data folder %s: AgentCube is already running with it (process %s)", s.cfg.DataDir, strings.TrimSpace(string(holder))),
			"stop that process, or choose another folder with --data-dir")
	}
	s.lock = f
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		return f.Close, fmt.Errorf("lock data folder: %w", err)
	}
	return f.Close, nil
}

// detachStdio puts away the standard files: what the sandboxes are given of them
// is not ours to give.
func (s *server) detachStdio(context.Context) (func() error, error) {
	stdout, stderr, err := gvisor.DetachStdio(s.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s.a.Stdout, s.a.Stderr = stdout, stderr
	s.log = s.a.serverLogger()
	s.web.Logger = s.log
	return nil, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func (s *server) openAudit(ctx context.Context) (undo func() error, err error) {
	s.audit, undo, err = openAudit(ctx, s.cfg, s.log)
	return undo, err
}

func (s *server) openImages(ctx context.Context, archive string) error {
	var err error
	if s.images, err = openImages(ctx, s.cfg, s.log); err != nil {
		return err
	}
	_, err = s.images.Get(ctx, s.cfg.DefaultImage)
	if image.CodeOf(err) != image.CodeNotFound {
		return err
	}
	if archive == "" {
		s.log.Warn("default image is missing", "image", s.cfg.DefaultImage, "fix", "agentcube image import ARCHIVE "+s.cfg.DefaultImage)
		return nil
	}
	s.log.Info("importing default image", "image", s.cfg.DefaultImage, "archive", archive)
	bar := s.a.imageProgress(archive)
	_, err = s.images.Import(ctx, s.cfg.DefaultImage, archive, bar.update)
	bar.finish()
	if err != nil {
		return fmt.Errorf("import default image: %w", err)
	}
	return nil
}

func (s *server) loadTemplates(ctx context.Context) error {
	var err error
	if s.templates, err = templates(s.cfg, s.log); err != nil {
		return err
	}
	return s.templates.Load(ctx)
}

func (s *server) openDriver(ctx context.Context) (func() error, error) {
	var err error
	if s.budget, err = memoryBudget(s.cfg); err != nil {
		return nil, err
	}
	held := newHeldImages(s.images)
	s.driver = gvisor.New(gvisor.Config{
		DataDir: s.cfg.DataDir, Images: held, Platform: platform(ctx, s.cfg.Platform),
		MemoryBudget: s.budget, SnapshotBudget: int64(s.cfg.SnapshotBudget), Standby: s.cfg.Standby, Logger: s.log,
	})
	if err := s.driver.Open(ctx); err != nil {
		return nil, fmt.Errorf("open gVisor driver: %w", err)
	}
	return func() error {
		err := s.driver.Close()
		held.release()
		return err
	}, nil
}

// openPlanes makes Workload Manager and Router, which know of each other only
// what is put together here.
func (s *server) openPlanes(ctx context.Context) (func() error, error) {
	token, made, err := auth.EnsureTokenFile(s.cfg.TokenFile)
	if err != nil {
		return nil, err
	}
	if made {
		s.log.Info("made local token", "file", s.cfg.TokenFile)
	}
	bootstrap, err := auth.LoadOrCreateRSAKey(s.cfg.BootstrapKeyPath())
	if err != nil {
		return nil, err
	}
	signing, err := auth.LoadOrCreateRSAKey(s.cfg.RouterKeyPath())
	if err != nil {
		return nil, err
	}
	s.store = s.telemetry.metrics.Store(s.store)
	tokens, clock := auth.NewTokens(s.store, nil), session.NewClock()
	callers, err := s.callers(ctx, token, tokens)
	if err != nil {
		return nil, err
	}
	s.manager = s.telemetry.manager(manager.Config{
		Store: s.store, Driver: s.driver, Templates: s.templates, Authenticator: callers, Tokens: tokens,
		BootstrapKey: bootstrap, RouterKey: &signing.PublicKey, Clock: clock, Logger: s.log, Audit: s.audit,
		SessionChanged: func(rec session.Session) { s.router.SessionChanged(rec) },
		TokenRevoked:   func(name string) { s.router.Revoked(name) },
		CreateTimeout:  s.cfg.SandboxCreateTimeout, Retention: s.cfg.EndedRetention,
		MaxSandboxes: s.cfg.MaxSandboxes, MemoryBudget: memoryOvercommit * s.budget,
		MaxPerOwner: s.cfg.MaxSessionsPerOwner, MaxCreateRate: s.cfg.MaxCreateRatePerOwner, MaxParallelStarts: s.cfg.MaxParallelStarts,
		CheckpointRetention: s.cfg.CheckpointRetention,
		HoldRequests:        func(id string, idle bool) (func(), bool) { return s.router.Hold(id, idle) },
		KeepSessions:        s.cfg.KeepSessions, EndToEnd: true,
	}, s.driver)
	s.router = s.telemetry.router(router.Config{
		Sessions: s.store, Dialer: router.ByID{Sandboxes: s.driver}, Creator: s.manager, Waker: s.manager, Authenticator: callers,
		SigningKey: signing, Clock: clock, Logger: s.log, MaxConcurrent: s.cfg.MaxConcurrentRequests,
		MaxPerOwner: s.cfg.MaxRequestsPerOwner, Audit: s.audit, AuditContent: s.cfg.AuditContent,
	})
	undo := func() error {
		// Its own time: the context of the command has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		err := s.manager.Close(ctx)
		s.router.Close()
		return err
	}
	return undo, s.manager.Open(ctx)
}

// handler is the one listener's: the Router's paths and all others.
func (s *server) handler() http.Handler {
	both := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if router.Owns(r.URL.Path) {
			s.router.ServeHTTP(w, r)
			return
		}
		s.manager.ServeHTTP(w, r)
	})
	plane := func(r *http.Request) metrics.Plane {
		if router.Owns(r.URL.Path) {
			return metrics.Router
		}
		return metrics.Manager
	}
	hosts := httpserve.Hosts{Names: s.cfg.HostNames()}
	return s.telemetry.middleware(httpserve.Middleware{Logger: s.log, Hosts: hosts}, plane).Wrap(both)
}

// serve runs the parts that run until ctx ends. Those that requests need end
// after the last request.
func (s *server) serve(ctx context.Context) error {
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	front, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	background := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(behind); err != nil {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	background("watch sessions", s.manager.Run)
	background("watch templates", s.templates.Run)
	background("serve metrics", s.telemetry.run)
	s.log.Info("serving", "url", s.url())
	err := s.announce()
	if err == nil {
		err = s.web.Run(front)
	}
	stop()
	wg.Wait()
	if cause := context.Cause(front); err == nil && ctx.Err() == nil && cause != nil {
		err = cause
	}
	return err
}

// memoryOvercommit is how often the memory budget may be promised: a limit is
// what a sandbox may grow to, and most stay far below theirs. The kernel holds
// the budget itself.
const memoryOvercommit = 4

// memoryBudget is what all sandboxes together may use, in bytes.
func memoryBudget(cfg *config.Config) (int64, error) {
	if cfg.MemoryBudget > 0 {
		return int64(cfg.MemoryBudget), nil
	}
	total, _, err := machineMemory()
	return total / 100 * 85, err
}
