package session

import (
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// Session is the record of one session. Times are UTC with at least
// millisecond resolution.
type Session struct {
	ID        string `json:"sessionId"` // UUIDv4
	Kind      string `json:"kind"`      // api.KindCodeInterpreter or api.KindAgentRuntime
	Namespace string `json:"namespace"` // of the template
	Name      string `json:"name"`      // of the template

	State  api.State `json:"state"`
	Fate   api.Fate  `json:"fate,omitempty"`
	Reason string    `json:"reason,omitempty"`

	Owner string   `json:"ownerId"`
	Auth  api.Auth `json:"auth"`
	// PublicKey is the PEM text of the session key's public half; for managed
	// sessions it is empty.
	PublicKey string `json:"publicKey,omitempty"`

	SandboxID   string           `json:"sandboxId"`
	Isolation   string           `json:"isolation"`
	EntryPoints []api.EntryPoint `json:"entryPoints"`

	IdleTimeout time.Duration `json:"idleTimeout"`
	CreatedAt   time.Time     `json:"createdAt"`
	ExpiresAt   time.Time     `json:"expiresAt"`
	// LastActivity is kept apart from the record by stores: Touch moves it, Update does not.
	LastActivity time.Time `json:"lastActivity"`
	EndedAt      time.Time `json:"endedAt"` // zero until ended

	Metadata map[string]string `json:"metadata,omitempty"`

	// IdempotencyKey and RequestDigest are of the create request: the same
	// owner and key find this session again, and the digest tells whether it
	// was the same request. Both empty when no key was given.
	IdempotencyKey string `json:"idempotencyKey,omitempty"`
	RequestDigest  string `json:"requestDigest,omitempty"`
}

// Deadline is when the session ends if nothing more happens: the earlier of
// its idle time-out and its longest life.
func (s Session) Deadline() time.Time {
	idle := s.LastActivity.Add(s.IdleTimeout)
	if idle.Before(s.ExpiresAt) {
		return idle
	}
	return s.ExpiresAt
}

// Ended reports whether the session is over.
func (s Session) Ended() bool { return s.State == api.StateEnded }

// API is the session as the native API shows it.
func (s Session) API() api.Session {
	out := api.Session{
		SessionID: s.ID, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name,
		State: s.State, Fate: s.Fate, Reason: s.Reason,
		Owner: s.Owner, Auth: s.Auth, Isolation: s.Isolation, SandboxID: s.SandboxID,
		IdleTimeoutSeconds: s.IdleTimeout.Seconds(),
		CreatedAt:          s.CreatedAt, ExpiresAt: s.ExpiresAt, LastActivityAt: s.LastActivity,
		Metadata: s.Metadata,
	}
	if !s.EndedAt.IsZero() {
		at := s.EndedAt
		out.EndedAt = &at
	}
	return out
}
