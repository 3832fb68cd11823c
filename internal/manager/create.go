package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// Why a creation was given up; each is the cause of its cancelled context.
var (
	errClosing   = errors.New("shutting down")
	errAbandoned = errors.New("the client went away")
	errDeleted   = errors.New("the session was deleted while it was being created")
	errForkFails = errors.New("another fork of the same request failed")
)

// errKeyFreed: the session that held the idempotency key is over, and the
// request can be tried as if it were the first.
var errKeyFreed = errors.New("idempotency key is free again")

// storeTimeout bounds store calls that must not end with the client's patience.
const storeTimeout = 30 * time.Second

// creation is a session being made. It goes on while at least one request waits
// for it.
type creation struct {
	keyed  bool // a repeated request can find the session again
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when result and err are set

	// waiting is guarded by Manager.mu.
	waiting int

	result session.Session
	err    error
}

// Create makes a session for owner and returns its record, running. With an
// idempotency key that owner has used before, it returns that session instead.
// When ctx ends first, and nobody else waits for the same session, it is undone.
// Errors are *api.Error or map to one by httpserve.AsError.
func (m *Manager) Create(ctx context.Context, owner auth.Principal, req Request) (session.Session, error) {
	if err := m.permit(ctx, owner.Name, 1); err != nil {
		return session.Session{}, err
	}
	for {
		rec, err := m.createOnce(ctx, owner, req)
		// A request that joined a creation just as its last client left, or
		// found one that had just failed, is the first of a new attempt.
		if ctx.Err() == nil && (errors.Is(err, errAbandoned) || errors.Is(err, errKeyFreed)) {
			continue
		}
		return rec, err
	}
}

func (m *Manager) createOnce(ctx context.Context, owner auth.Principal, req Request) (session.Session, error) {
	p, err := m.plan(ctx, owner, req, m.clock.Now())
	if err != nil {
		return session.Session{}, err
	}
	full := m.takeSeat(ctx, p.record)
	if full != nil {
		return m.whenFull(ctx, p.record, full)
	}
	return m.make(ctx, p)
}

// make makes the session of a plan that has its slot.
func (m *Manager) make(ctx context.Context, p plan) (session.Session, error) {
	c, ctxBuild, err := m.register(ctx, p.record)
	if err != nil {
		m.leaveSeat(ctx, p.record)
		return session.Session{}, err
	}
	existing, err := m.record(ctx, p.record)
	if err != nil {
		// Nothing was made yet: the creation is over before it began.
		m.leaveSeat(ctx, p.record)
		m.complete(p.record.ID, c, session.Session{}, err)
		c.cancel(nil)
		if errors.Is(err, session.ErrExists) && existing.ID != "" {
			return m.replay(ctx, existing, p.record.RequestDigest)
		}
		return session.Session{}, fmt.Errorf("record session: %w", err)
	}
	m.work.Go(func() { m.build(ctxBuild, c, p) })
	return m.await(ctx, p.record.ID, c)
}

// whenFull answers a request that there is no room for: with the session that
// its idempotency key has made before, if there is one, as that needs no room.
func (m *Manager) whenFull(ctx context.Context, rec session.Session, full error) (session.Session, error) {
	if rec.IdempotencyKey == "" {
		return session.Session{}, full
	}
	page, _, err := m.cfg.Store.List(ctx, session.Query{Owner: rec.Owner, IdempotencyKey: rec.IdempotencyKey, Limit: 1})
	switch {
	case err != nil:
		return session.Session{}, fmt.Errorf("find session by key: %w", err)
	case len(page) == 0:
		return session.Session{}, full
	}
	return m.replay(ctx, page[0], rec.RequestDigest)
}

// register announces a creation to the rest of the Manager, before its record
// exists, so that nobody takes the record for a forgotten one.
func (m *Manager) register(asked context.Context, rec session.Session) (*creation, context.Context, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return nil, nil, unavailable()
	}
	ctx, cancel := context.WithCancelCause(trace.Carry(audit.WithCause(m.base, audit.CauseOf(asked)), asked))
	c := &creation{keyed: rec.IdempotencyKey != "", cancel: cancel, done: make(chan struct{}), waiting: 1}
	m.creations[rec.ID] = c
	return c, ctx, nil
}

// record writes the pending record. It does not stop half way when the client
// goes away, so that what was written is known.
func (m *Manager) record(ctx context.Context, rec session.Session) (session.Session, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return m.cfg.Store.Create(ctx, rec)
}

// build makes the sandbox of a recorded session, or undoes what it began.
func (m *Manager) build(ctx context.Context, c *creation, p plan) {
	defer c.cancel(nil)
	timed, stop := context.WithTimeout(ctx, m.cfg.CreateTimeout)
	defer stop()
	silent := m.beat(timed, p.record.ID)
	result, err := m.makeSandbox(timed, p)
	silent()
	if err == nil {
		m.auditCreated(ctx, p, result)
	}
	switch {
	case err != nil:
		err = m.explain(timed, m.endedElsewhere(p.record.ID, err))
	case m.complete(p.record.ID, c, result, nil):
		m.log.Info("session created", "session", result.ID, "owner", result.Owner,
			"template", result.Namespace+"/"+result.Name, "auth", string(result.Auth),
			"duration", m.clock.Now().Sub(result.CreatedAt))
		return
	default:
		err = errAbandoned
	}
	m.undo(p.record, err)
	m.complete(p.record.ID, c, session.Session{}, err)
}

// endedElsewhere is why a creation failed that somebody else has ended the session of,
// and removed the sandbox.
func (m *Manager) endedElsewhere(id string, err error) error {
	if m.shared == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(m.attempts, storeTimeout)
	defer cancel()
	if rec, getErr := m.cfg.Store.Get(ctx, id); getErr == nil && rec.Ended() {
		return m.ended(rec).WithCause(err)
	}
	return err
}

func unavailable() *api.Error {
	return api.Errorf(http.StatusServiceUnavailable, api.CodeUnavailable, "shutting down").WithCause(errClosing)
}

// makeSandbox is the creation proper: sandbox, key, record.
func (m *Manager) makeSandbox(ctx context.Context, p plan) (session.Session, error) {
	leave, err := m.starts.enter(ctx, p.record.Owner)
	if err != nil {
		return session.Session{}, err
	}
	offered := m.offer(p)
	sb, err := m.cfg.Driver.Create(ctx, p.spec)
	leave()
	key := <-offered
	if err != nil {
		return session.Session{}, driverError(err)
	}
	if err := m.awaitServer(ctx, p); err != nil {
		return session.Session{}, err
	}
	var certificate string
	if key != nil {
		if sb.AgentID != "" { // which nobody knew before
			key.token, key.body, key.err = m.signOffer(p.record, sb.AgentID, p.given)
		}
		if certificate, err = m.initAgent(ctx, p, key); err != nil {
			return session.Session{}, err
		}
	}
	if err := p.together.wait(ctx); err != nil {
		return session.Session{}, err
	}
	now := m.clock.Now()
	// The idle clock starts when the session can be used.
	if err := m.cfg.Store.Touch(ctx, p.record.ID, now); err != nil {
		return session.Session{}, fmt.Errorf("touch session: %w", err)
	}
	rec, err := m.cfg.Store.Update(ctx, p.record.ID, func(s *session.Session) error {
		if s.State != api.StatePending {
			return m.ended(*s)
		}
		s.State = api.StateRunning
		s.Isolation = sb.Isolation
		if s.Address = sb.Address; s.Address != "" {
			s.EntryPoints = rehost(s.EntryPoints, s.Address)
		}
		if m.cfg.EndToEnd {
			s.Certificate = certificate
		}
		return nil
	})
	if err != nil {
		return session.Session{}, fmt.Errorf("update session: %w", err)
	}
	m.cfg.SessionChanged(rec)
	return rec, nil
}

func driverError(err error) error {
	for _, known := range []error{
		sandbox.ErrFull, sandbox.ErrNoImage, sandbox.ErrNoCommand, sandbox.ErrNoSnapshot, sandbox.ErrBadSnapshot, sandbox.ErrDiskFull, sandbox.ErrUnsupported,
		sandbox.ErrNotAllowed, sandbox.ErrBadTemplate, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return err
		}
	}
	return api.Errorf(http.StatusInternalServerError, api.CodeSandboxCreateFailed, "internal server error").
		WithHint("the server's log says more under this request id; `agentcube doctor` checks its machine").WithCause(err)
}

// explain replaces the error of a creation that was given up by why it was.
func (m *Manager) explain(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errClosing) || m.base.Err() != nil:
		return unavailable()
	case errors.Is(cause, context.DeadlineExceeded):
		return api.Errorf(http.StatusGatewayTimeout, api.CodeSandboxTimeout, "sandbox creation timed out").WithCause(err)
	case errors.Is(cause, errDeleted):
		e := api.Errorf(http.StatusGone, api.CodeSessionEnded, "%v", errDeleted).WithCause(errDeleted)
		e.Fate = string(api.FateDeleted)
		return e
	case errors.Is(cause, errAbandoned):
		return errAbandoned
	case errors.Is(cause, errForkFails):
		return errForkFails
	}
	return err
}

// undo ends the record of a creation that failed and removes its sandbox. It
// does not depend on the client, who may be gone.
func (m *Manager) undo(rec session.Session, cause error) {
	m.log.Warn("session not created", "session", rec.ID, "template", rec.Namespace+"/"+rec.Name, "error", cause)
	r := m.remove(rec.SandboxID, &ending{id: rec.ID, fate: api.FateFailed, reason: failureReason(cause)})
	<-r.tried
}

// failureReason is one sentence without internals.
func failureReason(err error) string {
	switch e, ok := errors.AsType[*api.Error](err); {
	case errors.Is(err, errAbandoned):
		return "the client went away while the session was being created"
	case errors.Is(err, errForkFails):
		return errForkFails.Error()
	case errors.Is(err, errDeleted):
		return "deleted while it was being created"
	case errors.Is(err, errClosing):
		return "AgentCube was stopped while the session was being created"
	case ok && e.Code == api.CodeSandboxTimeout:
		return "the sandbox did not become ready in time"
	case ok && e.Code == api.CodeServerNotListening:
		return e.Text
	case ok && e.Code == api.CodeSandboxInitFailed:
		return "the agent in the sandbox did not take its key"
	case ok && (e.Code == api.CodeFileNotWritten || e.Code == api.CodeCheckpointUnusable):
		return "the sandbox could not take the env and files of the request"
	case ok && e.Code == api.CodeServerOverloaded, errors.Is(err, sandbox.ErrFull):
		return "there was no room for another sandbox"
	case errors.Is(err, sandbox.ErrBadSnapshot):
		return "what it was to start from is damaged, or was made elsewhere"
	case errors.Is(err, sandbox.ErrNoSnapshot):
		return "what it was to start from is gone"
	case errors.Is(err, sandbox.ErrDiskFull):
		return "there was no room on disk"
	case errors.Is(err, sandbox.ErrNotAllowed):
		return "the machine does not allow sandboxes"
	case errors.Is(err, sandbox.ErrBadTemplate):
		return sandbox.ErrBadTemplate.Error()
	case errors.Is(err, sandbox.ErrNoImage):
		return "the template's image was not found"
	case errors.Is(err, sandbox.ErrNoCommand):
		return "the template names no command, and neither does its image"
	case errors.Is(err, session.ErrUnavailable):
		return "the session store failed"
	}
	return "the sandbox could not be made"
}

// complete publishes the outcome of a creation. It refuses, returning false, to
// publish a session that nobody waits for and nobody can ask for again.
func (m *Manager) complete(id string, c *creation, result session.Session, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && c.waiting == 0 && !c.keyed {
		return false
	}
	delete(m.creations, id)
	c.result, c.err = result, err
	close(c.done)
	return true
}

// await waits for a creation on behalf of one request.
func (m *Manager) await(ctx context.Context, id string, c *creation) (session.Session, error) {
	select {
	case <-c.done:
		return c.result, c.err
	case <-ctx.Done():
	}
	m.mu.Lock()
	c.waiting--
	last := c.waiting == 0
	_, underWay := m.creations[id]
	m.mu.Unlock()
	why := errAbandoned
	if errors.Is(context.Cause(ctx), errForkFails) {
		why = errForkFails
	}
	switch {
	case last && underWay:
		c.cancel(why)
	case last && c.err == nil && !c.keyed: // made, but nobody will hear of it
		m.remove(c.result.SandboxID, &ending{id: id, fate: api.FateFailed, reason: failureReason(why)})
	}
	return session.Session{}, ctx.Err()
}

// replay answers a request whose idempotency key has been used before.
func (m *Manager) replay(ctx context.Context, rec session.Session, requestDigest string) (session.Session, error) {
	if rec.RequestDigest != requestDigest {
		return session.Session{}, api.Errorf(http.StatusConflict, api.CodeIdempotencyConflict,
			"the idempotency key was used with another request").
			WithHint("use a new %s for a new session", api.HeaderIdempotencyKey)
	}
	m.mu.Lock()
	c := m.creations[rec.ID]
	if c != nil {
		c.waiting++
	}
	m.mu.Unlock()
	if c != nil {
		return m.await(ctx, rec.ID, c)
	}
	rec, err := m.settled(ctx, rec.ID)
	switch {
	case err != nil:
		return session.Session{}, err
	case rec.Ended() && rec.IdempotencyKey == "":
		return session.Session{}, errKeyFreed
	case rec.Ended():
		return session.Session{}, m.ended(rec)
	case rec.State == api.StatePending:
		return session.Session{}, notReady()
	}
	return rec, nil
}

const (
	firstLook = 20 * time.Millisecond
	maxLook   = 500 * time.Millisecond
)

// settled is the record of a session that is not being made here. Where others may be
// making it, it is waited for.
func (m *Manager) settled(ctx context.Context, id string) (session.Session, error) {
	for pause := firstLook; ; pause = min(2*pause, maxLook) {
		rec, err := m.cfg.Store.Get(ctx, id)
		if err != nil {
			return session.Session{}, fmt.Errorf("get session: %w", err)
		}
		if rec.State != api.StatePending || m.shared == nil {
			return rec, nil
		}
		if m.silent(rec) {
			if err := m.abandon(ctx, rec); err != nil {
				return session.Session{}, err
			}
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return session.Session{}, ctx.Err()
		case <-m.base.Done():
			return session.Session{}, unavailable()
		}
	}
}

// ended is the 410 for a session that is over.
func (m *Manager) ended(rec session.Session) *api.Error {
	e := api.Errorf(http.StatusGone, api.CodeSessionEnded, "session %q has ended: %s", rec.ID, rec.Fate)
	e.Fate = string(rec.Fate)
	e.Hint = rec.Reason
	if !rec.EndedAt.IsZero() {
		at := m.clock.Wall(rec.EndedAt)
		e.EndedAt = &at
	}
	return e
}

func notReady() *api.Error {
	e := api.Errorf(http.StatusConflict, api.CodeSessionNotReady, "the session is still being created")
	e.RetryAfter = 1
	return e
}

// CreateManaged makes a session without a key of the client's: the Router
// signs for it.
func (m *Manager) CreateManaged(ctx context.Context, owner auth.Principal, kind, namespace, name string) (session.Session, error) {
	return m.Create(ctx, owner, Request{Kind: kind, CreateRequest: api.CreateRequest{Namespace: namespace, Name: name}})
}
