package manager

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/template"
)

// Bounds of what a create request may hold.
const (
	maxNameBytes      = 253
	maxMetadata       = 64
	maxMetadataKey    = 128
	maxMetadataValue  = 4096
	maxIdempotencyKey = 255
	maxTTL            = int64(10 * 365 * 24 * time.Hour / time.Second)
)

// Labels that sandboxes carry.
const (
	labelSession = "agentcube.volcano.sh/session-id"
	labelOwner   = "agentcube.volcano.sh/owner"
	labelMemory  = "agentcube.volcano.sh/memory-bytes"
)

// SandboxID is the id of the sandbox that serves a session.
func SandboxID(sessionID string) string { return "s-" + sessionID }

// Request asks for a session.
type Request struct {
	api.CreateRequest
	// Kind of the template.
	Kind string
	// IdempotencyKey, when not empty, makes repeated requests of the same
	// owner find the same session.
	IdempotencyKey string
}

// plan is a request that passed every check: what is written and what is made.
type plan struct {
	record session.Session
	spec   sandbox.Spec
	tmpl   template.Template
}

func (m *Manager) plan(owner auth.Principal, req Request, now time.Time) (plan, error) {
	if err := check(req); err != nil {
		return plan{}, err
	}
	var publicKey string
	if req.PublicKey != "" {
		pem, _, err := auth.ParseSessionPublicKey(req.PublicKey)
		if err != nil {
			return plan{}, invalid("publicKey: %v", err).WithCause(err)
		}
		publicKey = pem
	}
	tmpl, err := m.template(req)
	if err != nil {
		return plan{}, err
	}
	kind, err := authOf(tmpl, publicKey)
	if err != nil {
		return plan{}, err
	}
	if err := m.checkIsolation(tmpl); err != nil {
		return plan{}, err
	}
	id := uuid.NewString()
	rec := session.Session{
		ID: id, Kind: tmpl.Kind, Namespace: tmpl.Namespace, Name: tmpl.Name,
		State: api.StatePending, Owner: owner.Name, Auth: kind, PublicKey: publicKey,
		SandboxID: SandboxID(id), EntryPoints: entryPoints(SandboxID(id), tmpl.Ports),
		IdleTimeout: tmpl.IdleTimeout, CreatedAt: now, LastActivity: now,
		ExpiresAt: now.Add(lifetime(req.TTL, tmpl.MaxDuration)), Metadata: req.Metadata,
		IdempotencyKey: req.IdempotencyKey,
	}
	if req.IdempotencyKey != "" {
		rec.RequestDigest = digest(req)
	}
	return plan{record: rec, spec: m.spec(tmpl, rec), tmpl: tmpl}, nil
}

func invalid(format string, args ...any) *api.Error {
	return api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, format, args...)
}

func check(req Request) error {
	switch {
	case req.Name == "":
		return invalid("name is required")
	case req.Namespace == "":
		return invalid("namespace is required")
	case len(req.Name) > maxNameBytes:
		return invalid("name is longer than %d bytes", maxNameBytes)
	case len(req.Namespace) > maxNameBytes:
		return invalid("namespace is longer than %d bytes", maxNameBytes)
	case req.TTL < 0:
		return invalid("ttl must not be negative")
	case req.TTL > maxTTL:
		return invalid("ttl must not be longer than ten years").WithHint("ttl is in seconds")
	case len(req.Metadata) > maxMetadata:
		return invalid("metadata has more than %d entries", maxMetadata)
	}
	for k, v := range req.Metadata {
		if k == "" || len(k) > maxMetadataKey || len(v) > maxMetadataValue {
			return invalid("metadata keys are 1 to %d bytes, values at most %d", maxMetadataKey, maxMetadataValue)
		}
	}
	return checkIdempotencyKey(req.IdempotencyKey)
}

func checkIdempotencyKey(key string) error {
	if len(key) > maxIdempotencyKey {
		return invalid("%s is longer than %d characters", api.HeaderIdempotencyKey, maxIdempotencyKey)
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return invalid("%s must be printable ASCII without spaces", api.HeaderIdempotencyKey)
		}
	}
	return nil
}

func (m *Manager) template(req Request) (template.Template, error) {
	tmpl, err := m.cfg.Templates.Get(req.Kind, req.Namespace, req.Name)
	if err == nil {
		return tmpl, nil
	}
	missing, ok := errors.AsType[*template.NotFoundError](err)
	if !ok {
		return template.Template{}, fmt.Errorf("get template: %w", err)
	}
	text := "code interpreter not found"
	if req.Kind == api.KindAgentRuntime {
		text = "agent runtime not found"
	}
	return template.Template{}, api.Errorf(http.StatusNotFound, api.CodeTemplateNotFound, "%s", text).
		WithHint("%s", missing.Hint()).WithCause(err)
}

// authOf says who will sign for a session of tmpl.
func authOf(tmpl template.Template, publicKey string) (api.Auth, error) {
	switch {
	case tmpl.AuthMode == template.AuthNone && publicKey != "":
		return "", invalid("the template has authMode none: nothing in its sandbox could check the key").
			WithHint("leave publicKey out, or use a template with authMode picod")
	case tmpl.AuthMode == template.AuthNone:
		return api.AuthNone, nil
	case publicKey != "":
		return api.AuthClientKey, nil
	}
	return api.AuthManaged, nil
}

// isolations, from the weakest to the strongest.
var isolations = [...]string{"none", "runc", "gvisor", "kata"}

func (m *Manager) checkIsolation(tmpl template.Template) error {
	if tmpl.MinIsolation == "" {
		return nil
	}
	have := m.cfg.Driver.Capabilities().Isolation
	want := slices.Index(isolations[:], tmpl.MinIsolation)
	if want >= 0 && slices.Index(isolations[:], have) >= want {
		return nil
	}
	return api.Errorf(http.StatusUnprocessableEntity, api.CodeIsolation,
		"the template demands isolation %q; here it is %q", tmpl.MinIsolation, have)
}

func entryPoints(host string, ports []template.Port) []api.EntryPoint {
	out := make([]api.EntryPoint, 0, len(ports))
	for _, p := range ports {
		out = append(out, api.EntryPoint{
			Path: p.Path, Protocol: p.Protocol, Endpoint: host + ":" + strconv.Itoa(int(p.Port)),
		})
	}
	return out
}

// lifetime is the template's, shortened by ttl when one was asked for.
func lifetime(ttl int64, longest time.Duration) time.Duration {
	if asked := time.Duration(ttl) * time.Second; ttl > 0 && asked < longest {
		return asked
	}
	return longest
}

// digest tells whether two requests ask for the same.
func digest(req Request) string {
	body, err := json.Marshal(struct {
		Kind string
		api.CreateRequest
	}{req.Kind, req.CreateRequest})
	if err != nil {
		panic("manager: request does not marshal: " + err.Error()) // strings and numbers always do
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func (m *Manager) spec(tmpl template.Template, rec session.Session) sandbox.Spec {
	s := sandbox.Spec{
		ID: rec.SandboxID, Image: tmpl.Image, Command: tmpl.Command, Args: tmpl.Args,
		Env: tmpl.Env, Resources: tmpl.Resources, RunAsRoot: tmpl.RunAsRoot,
		Workspace: tmpl.Workspace, MinIsolation: tmpl.MinIsolation,
		Labels: map[string]string{
			labelSession: rec.ID,
			labelOwner:   rec.Owner,
			labelMemory:  strconv.FormatInt(tmpl.Resources.MemoryBytes, 10),
		},
	}
	if tmpl.AuthMode != template.AuthNone {
		s.BootstrapKey = m.bootstrapPEM()
	}
	return s
}
