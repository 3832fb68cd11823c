package manager

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

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

const sandboxPrefix = "s-"

// SandboxID is the id of the sandbox that serves a session.
func SandboxID(sessionID string) string { return sandboxPrefix + sessionID }

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
	given  given
	// together, when set, is waited for before the session counts as running.
	together *together
	// parent is the session that this one is a fork of, or "".
	parent string
}

func (m *Manager) plan(ctx context.Context, owner auth.Principal, req Request, now time.Time) (plan, error) {
	if err := check(req); err != nil {
		return plan{}, err
	}
	publicKey, err := parseKey("publicKey", req.PublicKey)
	if err != nil {
		return plan{}, err
	}
	p, err := m.planFrom(ctx, owner, req, publicKey, now)
	if err != nil {
		return plan{}, err
	}
	p.given = given{env: req.Env, files: req.Files}
	if p.record.Auth == api.AuthNone && !p.given.empty() {
		return plan{}, invalid("the template has authMode none: nothing in its sandbox takes env and files").
			WithHint("leave them out, or use a template with authMode picod")
	}
	if req.IdempotencyKey != "" {
		p.record.IdempotencyKey, p.record.RequestDigest = req.IdempotencyKey, m.digest(req)
	}
	return p, nil
}

func (m *Manager) planFrom(ctx context.Context, owner auth.Principal, req Request, publicKey string, now time.Time) (plan, error) {
	if req.Checkpoint != "" {
		return m.planFromCheckpoint(ctx, owner, req, publicKey, now)
	}
	of := auth.TemplateRef{Kind: req.Kind, Namespace: req.Namespace, Name: req.Name}
	if err := m.cfg.Authorizer.Authorize(ctx, owner, auth.VerbCreate, of); err != nil {
		return plan{}, err
	}
	tmpl, err := m.template(ctx, owner, req)
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
	rec := moldOfTemplate(tmpl).record(owner.Name, kind, publicKey, req.TTL, req.Metadata, now)
	return plan{record: rec, spec: own(m.templateSpec(tmpl), rec)}, nil
}

// parseKey is the PEM text of a session's public key; "" when none is given.
func parseKey(field, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	pem, _, err := auth.ParseSessionPublicKey(text)
	if err != nil {
		return "", invalid("%s: %v", field, err).WithCause(err)
	}
	return pem, nil
}

func invalid(format string, args ...any) *api.Error {
	return api.Errorf(http.StatusBadRequest, api.CodeInvalidRequest, format, args...)
}

func check(req Request) error {
	switch {
	case req.Checkpoint != "" && !checkpointName.MatchString(req.Checkpoint):
		return unknownCheckpoint(req.Checkpoint)
	case req.Name == "" && req.Checkpoint == "":
		return invalid("name is required")
	case req.Namespace == "" && req.Checkpoint == "":
		return invalid("namespace is required")
	case len(req.Name) > maxNameBytes:
		return invalid("name is longer than %d bytes", maxNameBytes)
	case len(req.Namespace) > maxNameBytes:
		return invalid("namespace is longer than %d bytes", maxNameBytes)
	}
	if err := checkOwn(req.TTL, req.Metadata); err != nil {
		return err
	}
	if err := checkGiven(req); err != nil {
		return err
	}
	return checkIdempotencyKey(req.IdempotencyKey)
}

// checkOwn checks what a request says of the new session alone.
func checkOwn(ttl int64, metadata map[string]string) error {
	switch {
	case ttl < 0:
		return invalid("ttl must not be negative")
	case ttl > maxTTL:
		return invalid("ttl must not be longer than ten years").WithHint("ttl is in seconds")
	case len(metadata) > maxMetadata:
		return invalid("metadata has more than %d entries", maxMetadata)
	}
	for k, v := range metadata {
		if k == "" || len(k) > maxMetadataKey || len(v) > maxMetadataValue {
			return invalid("metadata keys are 1 to %d bytes, values at most %d", maxMetadataKey, maxMetadataValue)
		}
	}
	return nil
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

// template is the one that a request names. Others are named to who asks only where
// they may be used.
func (m *Manager) template(ctx context.Context, who auth.Principal, req Request) (template.Template, error) {
	tmpl, err := m.cfg.Templates.Get(req.Kind, req.Namespace, req.Name)
	if err == nil {
		return tmpl, nil
	}
	missing, ok := errors.AsType[*template.NotFoundError](err)
	if !ok {
		return template.Template{}, fmt.Errorf("get template: %w", err)
	}
	may := func(kind, namespace, name string) bool {
		of := auth.TemplateRef{Kind: kind, Namespace: namespace, Name: name}
		return m.cfg.Authorizer.Authorize(ctx, who, auth.VerbCreate, of) == nil
	}
	missing.Near = slices.DeleteFunc(missing.Near, func(ref string) bool {
		namespace, name, _ := strings.Cut(ref, "/")
		return !may(req.Kind, namespace, name)
	})
	if missing.OtherKind != "" && !may(missing.OtherKind, req.Namespace, req.Name) {
		missing.OtherKind = ""
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
		return "", keyUnchecked()
	case tmpl.Strict && publicKey == "":
		return "", invalid("publicKey is required: the template is strict, so that nobody but its creator can use a session").
			WithHint("use the SDK, which makes a key for each session, or another template")
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
	if d, ok := m.cfg.Driver.(sandbox.Isolator); ok {
		var err error
		if have, err = d.IsolationOf(tmpl.Spec("")); err != nil {
			return driverError(err)
		}
	}
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
func (m *Manager) digest(req Request) string {
	sealed := m.seal(req.Env, req.Files)
	req.Env, req.Files = nil, nil
	body, err := json.Marshal(struct {
		Kind string
		api.CreateRequest
		Given string `json:",omitempty"`
	}{req.Kind, req.CreateRequest, sealed})
	if err != nil {
		panic("manager: request does not marshal: " + err.Error()) // strings and numbers always do
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
