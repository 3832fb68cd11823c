package router

import (
	"context"
	"crypto/rsa"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// Sessions is what the Router needs of a session.Store. When it is a
// session.Pinger too, readiness asks it.
type Sessions interface {
	Get(ctx context.Context, id string) (session.Session, error)
	Touch(ctx context.Context, id string, at time.Time) error
}

// Creator makes the sessions of requests that name none.
type Creator interface {
	// CreateManaged makes a session without a key of the client's, owned by
	// owner, from the template of that kind, namespace and name. ctx carries the
	// owner's credentials, see auth.WithAuthorization.
	CreateManaged(ctx context.Context, owner auth.Principal, kind, namespace, name string) (session.Session, error)
}

// Waker resumes paused sessions.
type Waker interface {
	// Wake returns when the session runs. Its error is the answer to the
	// request that the session was to be woken for.
	Wake(ctx context.Context, id string) error
}

// Config of a Router. Fields without a default are required.
type Config struct {
	Sessions Sessions
	Dialer   Dialer
	Creator  Creator
	// Waker wakes a paused session when a request comes for it. Without one
	// such requests are answered 409.
	Waker         Waker
	Authenticator auth.Authenticator
	// Authorizer says what callers may do with sessions that are not bound to a key,
	// beside their scopes; nil means that there is nothing beside. It is asked at each
	// request, and so has to remember.
	Authorizer auth.Authorizer
	// SigningKey signs the Router's tokens for managed sessions.
	SigningKey *rsa.PrivateKey
	// Clock is the time of the sessions; nil means that it is the machine's, with
	// MaxRecordAge a session.NewWallClock.
	Clock *session.Clock
	// Logger; nil means slog.Default().
	Logger *slog.Logger
	// Audit gets what passes here; nil means that nothing is recorded.
	Audit audit.Recorder
	// AuditContent has the beginnings of requests and answers recorded too.
	AuditContent bool
	// Rejected, when set, is told of what is refused because of a limit: "requests",
	// "owner" or "connections". It must not block.
	Rejected func(limit string)
	// MaxConcurrent bounds requests under way; more are answered 429 at once.
	// 0 means no bound.
	MaxConcurrent int
	// MaxPerOwner bounds those of one owner; 0 means no bound. They are counted
	// when it is known whose they are.
	MaxPerOwner int
	// DialTimeout bounds the wait for a connection to a sandbox; 0 means 10 s.
	DialTimeout time.Duration
	// WakeTimeout bounds the wait for a paused session to run; 0 means 30 s.
	WakeTimeout time.Duration
	// ExitGrace is how long a request whose sandbox broke off waits to hear
	// that the session has ended, so that its answer can say why; 0 means 2 s.
	ExitGrace time.Duration
	// MaxRecordAge is for a Router in a process of its own, whom nobody tells of changes:
	// how old what it knows of a running session may be when a request comes for it.
	// What is older is read again. 0 means that SessionChanged and Revoked are called.
	MaxRecordAge time.Duration
	// RecheckInterval is how often such a Router looks at the session, and at the
	// caller's token, of a request that is under way; 0 means 3 s.
	RecheckInterval time.Duration
}

// Router is the data plane. It keeps what it knows of running sessions in
// memory: SessionChanged has to be called with every change of a record, unless
// Config.MaxRecordAge is set.
type Router struct {
	cfg       Config
	log       *slog.Logger
	proxy     *httputil.ReverseProxy
	targets   *targets
	owners    *owners
	strangers audit.Strangers
	inFlight  atomic.Int64
	spliced   atomic.Int64 // connections that are carried unread
	reached   atomic.Bool  // the store has answered, and need not be asked again whether it is there
	buffers   *bufferPool
	// draining ends when no new requests are taken any more.
	draining context.Context
	drain    context.CancelFunc
}

// New makes a Router. It does no I/O.
func New(cfg Config) *Router {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Audit == nil {
		cfg.Audit = audit.Nothing{}
	}
	if cfg.Rejected == nil {
		cfg.Rejected = func(string) {}
	}
	switch {
	case cfg.Clock != nil:
	case cfg.MaxRecordAge > 0:
		cfg.Clock = session.NewWallClock()
	default:
		cfg.Clock = session.NewClock()
	}
	if cfg.RecheckInterval == 0 {
		cfg.RecheckInterval = 3 * time.Second
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = auth.Everybody{}
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.WakeTimeout == 0 {
		cfg.WakeTimeout = 30 * time.Second
	}
	if cfg.ExitGrace == 0 {
		cfg.ExitGrace = 2 * time.Second
	}
	rt := &Router{cfg: cfg, log: cfg.Logger, owners: newOwners(cfg.MaxPerOwner, cfg.Rejected)}
	rt.targets = newTargets(rt)
	rt.buffers = newBufferPool()
	rt.draining, rt.drain = context.WithCancel(context.Background())
	rt.proxy = rt.newProxy()
	return rt
}

// Drain ends the connections that are carried unread and on which nothing is under
// way, now or when they become so.
func (rt *Router) Drain() { rt.drain() }

// SessionChanged tells the Router of a session's new record. The connections
// of a session that does not run any more are closed.
func (rt *Router) SessionChanged(rec session.Session) { rt.targets.changed(rec) }

// Close closes all connections to sandboxes. Requests under way break off.
func (rt *Router) Close() { rt.targets.closeAll() }

// Owns reports whether a decoded path is one of the Router's, for a listener that
// serves the control plane too. So is one that would be if it were cleaned: a
// redirect would clean, and escape anew, what goes to the sandbox as it is.
func Owns(p string) bool {
	const data = "/v1/namespaces/"
	return p == "/health/live" || p == "/health/ready" || strings.HasPrefix(p, data) || strings.HasPrefix(path.Clean("/"+p), data)
}

// ServeHTTP implements http.Handler.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/health/live" && r.Method == http.MethodGet:
		writeStatus(w, http.StatusOK, `{"status":"alive"}`)
	case r.URL.Path == "/health/ready" && r.Method == http.MethodGet:
		rt.ready(w, r)
	default:
		httpserve.HandlerFunc(rt.invoke).ServeHTTP(w, r)
	}
}

// ready says whether requests are to be sent here. One of several Routers stays ready
// once it has reached the store: that is away for all of them at the same time, they
// go on with the sessions that they know, and have an answer for the others.
func (rt *Router) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if p, ok := rt.cfg.Sessions.(session.Pinger); ok && !rt.reached.Load() {
		if err := p.Ping(ctx); err != nil {
			rt.log.Error("session store not ready", "error", err)
			writeStatus(w, http.StatusServiceUnavailable, `{"error":"session manager not available","status":"not ready"}`)
			return
		}
		rt.reached.Store(rt.cfg.MaxRecordAge > 0)
	}
	writeStatus(w, http.StatusOK, `{"status":"ready"}`)
}

func writeStatus(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", httpserve.ContentTypeJSON)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// invoke serves one data-plane request.
func (rt *Router) invoke(w http.ResponseWriter, r *http.Request) error {
	inv, ok := parseInvocation(r.URL.EscapedPath())
	if !ok || !inv.allows(r.Method) {
		httpserve.NotFound(w, r)
		return nil
	}
	if inv.bare {
		redirectToSlash(w, r)
		return nil
	}
	if n := rt.inFlight.Add(1); rt.cfg.MaxConcurrent > 0 && n > int64(rt.cfg.MaxConcurrent) {
		rt.inFlight.Add(-1)
		rt.cfg.Rejected("requests")
		return httpserve.Overloaded()
	}
	defer rt.inFlight.Add(-1)
	if err := rt.cfg.Audit.Ready(); err != nil {
		return err
	}
	v, r := rt.owners.visit(r)
	defer v.end()
	c, err := rt.begin(w, r, v, inv)
	if err != nil || c == nil {
		return rt.notBegun(r, afterRevocation(r.Context(), err))
	}
	defer c.finish(r.Context())
	c.recording = rt.newRecording(c, r)
	defer c.recording.finish()
	if c.authorization != "" {
		defer c.target.tokens.signAhead()()
	}
	// An answer may begin before the request has been sent in full. Where the
	// protocol always allows that, there is nothing to enable.
	_ = http.NewResponseController(w).EnableFullDuplex()
	ctx := context.WithValue(r.Context(), callKey{}, c)
	if !c.keepAuth { // should the session have to be woken once more
		ctx = auth.WithAuthorization(ctx, r.Header.Get("Authorization"))
	}
	rt.proxy.ServeHTTP(newAnswer(w, c), r.WithContext(ctx))
	return nil
}

// notBegun records that a request did not come to a sandbox, and returns its error.
// Without one it was answered as PicoD refuses.
func (rt *Router) notBegun(r *http.Request, err error) error {
	if err == nil {
		rt.auditRefused(r, 0, "")
		return nil
	}
	known := httpserve.AsError(err)
	rt.auditRefused(r, known.Status, string(known.Code))
	return err
}

// begin admits a request and counts it as under way in its session. A nil call
// without error means that the answer has been given.
func (rt *Router) begin(w http.ResponseWriter, r *http.Request, v *visit, inv invocation) (*call, error) {
	id := r.Header.Get(api.HeaderSessionID)
	if len(r.Header.Values(api.HeaderSessionID)) > 1 {
		return nil, api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, "there is more than one header %s", api.HeaderSessionID)
	}
	for {
		c, err := rt.admit(w, r, v, inv, id)
		if err != nil || c == nil {
			return nil, err
		}
		id = c.session
		entered := rt.targets.enter(c.target)
		c.enough()
		if !entered {
			continue // it is about to be paused, or has been
		}
		if err := c.target.activity.begin(r.Context()); err != nil {
			rt.targets.leave(c.target)
			return nil, err
		}
		return c, nil
	}
}

// redirectToSlash sends /invocations to /invocations/.
func redirectToSlash(w http.ResponseWriter, r *http.Request) {
	to := r.URL.EscapedPath() + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	status := http.StatusMovedPermanently
	if r.Method != http.MethodGet {
		status = http.StatusTemporaryRedirect
	}
	w.Header().Set("Location", to)
	w.WriteHeader(status)
}

// admit finds, makes or wakes the session of a request and checks that the
// request may go there. It has set the session's header once the caller may know
// of it. A nil call without error means that the answer has been given.
func (rt *Router) admit(w http.ResponseWriter, r *http.Request, v *visit, inv invocation, id string) (*call, error) {
	if id == "" {
		return rt.admitNew(w, r, v, inv)
	}
	t, rec, held, err := rt.targets.look(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if rec.Kind != inv.kind || rec.Namespace != inv.namespace || rec.Name != inv.name {
		return nil, unknownSession(id)
	}
	if rec.Auth == api.AuthClientKey {
		w.Header().Set(api.HeaderSessionID, rec.ID)
		if refused := verify(t.keyOf(rec), r); refused != nil {
			refused.write(w, r)
			return nil, nil
		}
		err = v.enter(rec.Owner)
	} else {
		err = rt.letIn(w, r, v, rec)
	}
	if err != nil {
		return nil, err
	}
	if inv.escapes && rec.Auth != api.AuthNone {
		escapes().write(w, r)
		return nil, nil
	}
	if held {
		if t, rec, err = rt.targets.find(r.Context(), id); err != nil {
			return nil, err
		}
	}
	return rt.callTo(t, rec, inv, r)
}

// letIn checks that a session that is not bound to a key is the caller's to use.
// To another owner, whatever may be said of their token, it does not exist.
func (rt *Router) letIn(w http.ResponseWriter, r *http.Request, v *visit, rec session.Session) error {
	_, err := rt.identify(r, v, func(who auth.Principal) error {
		switch {
		case !who.Sees(rec.Owner):
			return unknownSession(rec.ID)
		case !who.Owns(rec.Owner):
			return unknownSession(rec.ID).WithHint(auth.SeenOnly)
		}
		w.Header().Set(api.HeaderSessionID, rec.ID)
		if err := who.Need(auth.ScopeUse); err != nil {
			return err
		}
		of := auth.TemplateRef{Kind: rec.Kind, Namespace: rec.Namespace, Name: rec.Name}
		return rt.cfg.Authorizer.Authorize(r.Context(), who, auth.VerbUse, of)
	})
	return err
}

// admitNew makes a session for a request that names none, and will use it.
func (rt *Router) admitNew(w http.ResponseWriter, r *http.Request, v *visit, inv invocation) (*call, error) {
	who, err := rt.identify(r, v, func(who auth.Principal) error {
		if err := who.Need(auth.ScopeCreate); err != nil {
			return err
		}
		if err := who.Need(auth.ScopeUse); err != nil {
			return err
		}
		// Whether it may be made, the Workload Manager asks.
		of := auth.TemplateRef{Kind: inv.kind, Namespace: inv.namespace, Name: inv.name}
		return rt.cfg.Authorizer.Authorize(r.Context(), who, auth.VerbUse, of)
	})
	if err != nil {
		return nil, err
	}
	ctx := auth.WithAuthorization(caused(r, who.Name), r.Header.Get("Authorization"))
	rec, err := rt.cfg.Creator.CreateManaged(ctx, who, inv.kind, inv.namespace, inv.name)
	if err != nil {
		return nil, createError(inv, err)
	}
	w.Header().Set(api.HeaderSessionID, rec.ID)
	t, rec, err := rt.targets.find(r.Context(), rec.ID)
	if err != nil {
		return nil, err
	}
	if inv.escapes && rec.Auth != api.AuthNone {
		escapes().write(w, r)
		return nil, nil
	}
	return rt.callTo(t, rec, inv, r)
}

// callTo makes the call of a request that may go to a session, waking it first
// if it has no target.
func (rt *Router) callTo(t *target, rec session.Session, inv invocation, r *http.Request) (c *call, err error) {
	enough := rt.targets.want(rec.ID)
	defer func() {
		if err != nil {
			enough()
		}
	}()
	if t == nil {
		ctx := caused(r, actorOf(rec))
		if rec.Auth != api.AuthClientKey { // else it is no token, but a signature
			ctx = auth.WithAuthorization(ctx, r.Header.Get("Authorization"))
		}
		if t, rec, err = rt.awaken(ctx, rec); err != nil {
			return nil, err
		}
	}
	if c, err = rt.newCall(t, rec, inv, r); err == nil {
		c.enough = enough
	}
	return c, err
}
