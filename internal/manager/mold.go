package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/template"
)

// mold is what a new session has of that which it is made from: a template, a
// checkpoint, or another session.
type mold struct {
	kind, namespace, name   string
	entryPoints             []api.EntryPoint // of any host
	idleTimeout, pauseAfter time.Duration
	maxDuration             time.Duration
	memory                  int64
	env                     map[string]string
	strict                  bool
	// parent and checkpoint say which session or checkpoint it was, if any.
	parent, checkpoint string
}

func moldOfTemplate(t template.Template) mold {
	return mold{
		kind: t.Kind, namespace: t.Namespace, name: t.Name, entryPoints: entryPoints("", t.Ports),
		idleTimeout: t.IdleTimeout, pauseAfter: t.PauseAfter, maxDuration: t.MaxDuration,
		memory: t.Resources.MemoryBytes, env: t.Env, strict: t.Strict,
	}
}

func moldOfSession(s session.Session) mold {
	return mold{
		kind: s.Kind, namespace: s.Namespace, name: s.Name, entryPoints: s.EntryPoints,
		idleTimeout: s.IdleTimeout, pauseAfter: s.PauseAfter,
		// Sessions of before copies were known tell only their own life.
		maxDuration: cmp.Or(s.MaxDuration, s.ExpiresAt.Sub(s.CreatedAt)),
		memory:      s.MemoryBytes, env: s.Env, strict: s.Strict, parent: s.ID,
	}
}

func moldOfCheckpoint(c session.Checkpoint) mold {
	return mold{
		kind: c.Kind, namespace: c.Namespace, name: c.Template, entryPoints: c.EntryPoints,
		idleTimeout: c.IdleTimeout, pauseAfter: c.PauseAfter, maxDuration: c.MaxDuration,
		memory: c.MemoryBytes, env: c.Env, strict: c.Strict, checkpoint: c.Name,
	}
}

// record is a new session of owner, pending.
func (d mold) record(owner string, kind api.Auth, publicKey string, ttl int64, metadata map[string]string, now time.Time) session.Session {
	id := uuid.NewString()
	return session.Session{
		ID: id, Kind: d.kind, Namespace: d.namespace, Name: d.name,
		State: api.StatePending, Owner: owner, Auth: kind, PublicKey: publicKey,
		SandboxID: SandboxID(id), EntryPoints: rehost(d.entryPoints, SandboxID(id)),
		IdleTimeout: d.idleTimeout, PauseAfter: d.pauseAfter, CreatedAt: now, LastActivity: now,
		ExpiresAt: now.Add(lifetime(ttl, d.maxDuration)), Metadata: metadata,
		MaxDuration: d.maxDuration, MemoryBytes: d.memory, Env: d.env, Strict: d.strict,
		Parent: d.parent, Checkpoint: d.checkpoint,
	}
}

// rehost puts the ports of entry points on another host.
func rehost(from []api.EntryPoint, host string) []api.EntryPoint {
	out := make([]api.EntryPoint, 0, len(from))
	for _, e := range from {
		if _, port, err := net.SplitHostPort(e.Endpoint); err == nil {
			e.Endpoint = net.JoinHostPort(host, port)
		}
		out = append(out, e)
	}
	return out
}

// templateSpec is the part of a sandbox's spec that its template decides: the
// same for Create, Prepare and Warm.
func (m *Manager) templateSpec(tmpl template.Template) sandbox.Spec {
	return tmpl.Spec(m.bootstrapPEM())
}

// copySpec is the spec of a sandbox that starts from a snapshot.
func (m *Manager) copySpec(snapshot string, rec session.Session) sandbox.Spec {
	s := sandbox.Spec{Snapshot: snapshot}
	if rec.Auth != api.AuthNone {
		s.BootstrapKey = m.bootstrapPEM()
	}
	return own(s, rec)
}

// own gives a spec what belongs to one session alone.
func own(s sandbox.Spec, rec session.Session) sandbox.Spec {
	s.ID = rec.SandboxID
	s.Labels = map[string]string{
		labelSession: rec.ID,
		labelOwner:   rec.Owner,
		labelMemory:  strconv.FormatInt(rec.MemoryBytes, 10),
	}
	return s
}

// planFromCheckpoint is plan for a request that names a checkpoint.
func (m *Manager) planFromCheckpoint(ctx context.Context, owner auth.Principal, req Request, publicKey string, now time.Time) (plan, error) {
	c, err := m.cfg.Store.GetCheckpoint(ctx, owner.Name, req.Checkpoint)
	switch {
	case errors.Is(err, session.ErrNoCheckpoint):
		return plan{}, unknownCheckpoint(req.Checkpoint).WithCause(err)
	case err != nil:
		return plan{}, fmt.Errorf("get checkpoint: %w", err)
	case req.Kind != c.Kind:
		return plan{}, invalid("the checkpoint is of kind %s: use the path of that kind", c.Kind)
	case req.Name != "" && req.Name != c.Template, req.Namespace != "" && req.Namespace != c.Namespace:
		return plan{}, invalid("the checkpoint is of template %s/%s", c.Namespace, c.Template).
			WithHint("leave name and namespace out")
	case c.Auth == api.AuthClientKey && publicKey == "":
		return plan{}, invalid("publicKey is required: the checkpoint is of a session that is bound to a key")
	case c.Auth == api.AuthNone && publicKey != "":
		return plan{}, keyUnchecked()
	}
	of := auth.TemplateRef{Kind: c.Kind, Namespace: c.Namespace, Name: c.Template}
	if err := m.cfg.Authorizer.Authorize(ctx, owner, auth.VerbCreate, of); err != nil {
		return plan{}, err
	}
	kind := c.Auth
	if publicKey != "" {
		kind = api.AuthClientKey
	}
	// From now on it does not count as forgotten.
	if err := m.cfg.Store.UseCheckpoint(ctx, c.Owner, c.Name, now); err != nil && !errors.Is(err, session.ErrNoCheckpoint) {
		return plan{}, fmt.Errorf("use checkpoint: %w", err)
	}
	rec := moldOfCheckpoint(c).record(owner.Name, kind, publicKey, req.TTL, req.Metadata, now)
	return plan{record: rec, spec: m.copySpec(c.Snapshot, rec)}, nil
}

func unknownCheckpoint(name string) *api.Error {
	return api.Errorf(http.StatusNotFound, api.CodeCheckpointNotFound, "checkpoint %s not found", shorten(name))
}

func keyUnchecked() *api.Error {
	return invalid("the template has authMode none: nothing in its sandbox could check the key").
		WithHint("leave publicKey out, or use a template with authMode picod")
}
