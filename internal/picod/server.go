package picod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/picod/jail"
	"github.com/volcano-sh/agentcube/internal/picod/journal"
	"github.com/volcano-sh/agentcube/internal/picod/proc"
	"github.com/volcano-sh/agentcube/internal/picod/token"
	"github.com/volcano-sh/agentcube/internal/picod/zygote"
	"github.com/volcano-sh/agentcube/internal/trace"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Server answers the API of one sandbox. Open it before its Handler is used.
type Server struct {
	cfg     Config
	log     *slog.Logger
	gate    *token.Gate
	runner  *proc.Runner
	zygote  *zygote.Zygote // nil: every run of Python starts an interpreter
	ws      *jail.Workspace
	env     []string
	slots   chan struct{} // executions
	bodies  chan struct{} // large bodies in memory
	writers gzipPool
	started time.Time
	// journal is the record of the session's encrypted requests; a copy of the
	// sandbox begins with another.
	journal atomic.Pointer[journal.Journal]
	ports   *httputil.ReverseProxy // to what user code serves
}

// New returns a Server for a valid Config.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check configuration: %w", err)
	}
	runner := proc.Config{
		MaxProcesses: cfg.MaxProcesses, CgroupDir: cfg.CgroupDir, ReapOrphans: cfg.IsInit,
	}
	if cfg.RunAs != nil {
		runner.User = &proc.User{UID: cfg.RunAs.UID, GID: cfg.RunAs.GID}
	}
	s := &Server{
		cfg: cfg, log: log, started: time.Now(),
		gate: token.New(token.Config{
			Bootstrap: cfg.Bootstrap, Router: cfg.RouterKey, SandboxID: cfg.SandboxID,
			SessionID: cfg.SessionID, StateDir: cfg.StateDir,
		}),
		runner:  proc.New(runner, log),
		slots:   make(chan struct{}, cfg.MaxConcurrent),
		bodies:  make(chan struct{}, maxLargeBodies),
		writers: make(gzipPool, 4), ports: newPorts(log),
	}
	s.journal.Store(new(journal.Journal))
	return s, nil
}

// Open makes the workspace and gets everything that commands need.
func (s *Server) Open() (err error) {
	if err := s.gate.Load(); err != nil {
		return fmt.Errorf("load session: %w", err)
	}
	s.env = s.baseEnv(s.prepareAccount())
	if err := os.MkdirAll(s.cfg.Workspace, 0o755); err != nil {
		return fmt.Errorf("make workspace: %w", err)
	}
	var owner *jail.Owner
	if u := s.cfg.RunAs; u != nil {
		owner = &jail.Owner{UID: int(u.UID), GID: int(u.GID)}
		// A workspace that is the whole file system stays its owner's.
		if s.cfg.Workspace != "/" {
			if err := os.Chown(s.cfg.Workspace, owner.UID, owner.GID); err != nil {
				return fmt.Errorf("own workspace: %w", err)
			}
		}
	}
	if s.ws, err = jail.Open(s.cfg.Workspace, owner); err != nil {
		return err
	}
	if err := s.runner.Open(); err != nil {
		return fmt.Errorf("open runner: %w", err)
	}
	if s.cfg.PythonZygote && s.cfg.zygoteUser() != 0 {
		s.zygote = zygote.New(zygote.Config{
			Modules: s.cfg.Preload, Env: append(s.env[:len(s.env):len(s.env)], "PWD="+s.ws.Dir()), Dir: s.ws.Dir(),
		}, s.runner, s.log)
		s.zygote.Open(context.Background())
	}
	return nil
}

// Prepared returns when what is kept ready for commands is ready, or will never
// be. It fails only when ctx ends first.
func (s *Server) Prepared(ctx context.Context) error {
	if s.zygote == nil {
		return nil
	}
	return s.zygote.Prepared(ctx)
}

// baseEnv is the environment of every command.
func (s *Server) baseEnv(user string) []string {
	env := append([]string(nil), s.cfg.Env...)
	if s.cfg.RunAs != nil {
		env = append(env, "HOME="+s.cfg.Workspace, "USER="+user, "LOGNAME="+user)
	}
	for _, kv := range env {
		if strings.HasPrefix(kv, "PATH=") {
			return env
		}
	}
	return append(env, "PATH="+defaultPath)
}

// Close ends all commands and frees what Open got.
func (s *Server) Close() {
	if s.zygote != nil {
		s.zygote.Close()
	}
	s.runner.Close()
	if s.ws != nil {
		_ = s.ws.Close()
	}
}

// Run opens the server, listens on all interfaces, and serves until ctx ends;
// then it lets running requests finish, within the drain time, and closes.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	if err := s.Open(); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(s.cfg.Port)))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if s.cfg.Host == nil {
		return s.Serve(ctx, l)
	}
	h, err := s.startHost(ctx)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer h.close()
	return s.Serve(ctx, l, h.direct)
}

// crowded is what a connection that finds no room is told.
const crowded = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\n\r\n" +
	`{"error":"too many connections, try again later","code":429,"reason":"TOO_MANY_CONNECTIONS"}`

// Serve is Run with an open Server and listeners, which it closes. Connections of
// the network are bounded, as whoever is in the sandbox can make them; the host's
// own are not.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	limit := httpguard.NewConnections(s.cfg.MaxConnections, crowded)
	srv := &http.Server{
		Handler:           limit.Wrap(s.Handler()),
		ConnContext:       limit.Context,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		// "OPTIONS *" is not found, as all else that is not known.
		DisableGeneralOptionsHandler: true,
	}
	failed := make(chan error, len(listeners))
	var sorters []*httpguard.Sorter
	for _, l := range listeners {
		if _, tcp := l.Addr().(*net.TCPAddr); tcp {
			l = limit.Listener(l)
		}
		s.log.Info("serving", "address", l.Addr().String())
		l := sniff(l, s.gate.TLS())
		sorters = append(sorters, l)
		go func() { failed <- srv.Serve(l) }()
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.log.Info("draining")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("requests cut off", "after", s.cfg.Drain)
		err = srv.Close()
	}
	for range listeners {
		_ = <-failed
	}
	for _, l := range sorters {
		l.Finish(ctx) // which has ended: who has not begun by now is not waited for
	}
	return err
}

// Handler returns the API. It keeps no state of its own.
func (s *Server) Handler() http.Handler {
	return httpguard.Transfers{Pace: s.cfg.Pace}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{Server: s, w: w, r: r, id: requestID(r), parent: trace.From(r.Header)}
		h := w.Header()
		h.Set("X-Request-Id", q.id)
		// Nothing is kept by who carries it, or rendered by a browser.
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		if r.TLS != nil {
			defer q.record()()
		}
		route := q.route()
		if route == nil {
			http.NotFound(w, r)
			return
		}
		if r.URL.Path != "/health" && r.ContentLength > q.limit() {
			q.fail(q.tooLarge())
			return
		}
		defer q.freeBody()
		if p := route(); p != nil {
			q.fail(p)
		}
	}))
}

// request is one request on its way through a handler.
type request struct {
	*Server
	w  http.ResponseWriter
	r  *http.Request
	id string
	// parent is the step of a trace that the request is part of, if it says one.
	parent trace.Parent
	large  bool // it holds one of the places for large bodies
	note   note
}

// route finds the handler, or nil. Nothing but exact methods and paths is
// known; wrong methods are not found either.
func (q *request) route() func() *problem {
	method, path := q.r.Method, q.r.URL.Path
	switch {
	case method == http.MethodGet && path == "/health":
		return q.health
	case method == http.MethodPost && path == "/init" && q.gate.CanInitialize():
		return q.initialize
	case method == http.MethodPost && path == "/seal" && q.gate.CanInitialize():
		return q.seal
	case method == http.MethodGet && path == "/api/audit":
		return q.auditRecord
	case strings.HasPrefix(path, portPath):
		return q.port
	case method == http.MethodPost && path == "/api/execute":
		return q.execute
	case method == http.MethodPost && path == "/api/files":
		return q.upload
	case method == http.MethodGet && path == "/api/files":
		return q.list
	case method == http.MethodGet && strings.HasPrefix(path, "/api/files/"):
		return q.download
	case method == http.MethodPost && (path == "/api/execute/" || path == "/api/files/"):
		return q.withoutSlash
	}
	return nil
}

func (q *request) withoutSlash() *problem {
	http.Redirect(q.w, q.r, strings.TrimSuffix(q.r.URL.Path, "/"), http.StatusTemporaryRedirect)
	return nil
}

func (q *request) health() *problem {
	q.reply(http.StatusOK, false, map[string]string{
		"status": "ok", "service": "PicoD", "version": Version, "uptime": time.Since(q.started).String(),
	})
	return nil
}

// limit is the largest body this request may have.
func (q *request) limit() int64 {
	switch {
	case q.r.URL.Path == "/init":
		return maxInitBody
	case q.isMultipart() && q.r.URL.Path == "/api/files":
		return q.cfg.MaxUploadBytes
	}
	return MaxBody
}

func (q *request) isMultipart() bool {
	return strings.HasPrefix(q.r.Header.Get("Content-Type"), "multipart/form-data")
}
