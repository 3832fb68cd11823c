package session

import (
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// Session is the record of one session. Times are those of a Clock, UTC with at
// least millisecond resolution.
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

	SandboxID string `json:"sandboxId"`
	Isolation string `json:"isolation"`
	// Address is the IP address at which the ports of the sandbox are reached; ""
	// where they are reached through its driver.
	Address     string           `json:"address,omitempty"`
	EntryPoints []api.EntryPoint `json:"entryPoints"`

	IdleTimeout time.Duration `json:"idleTimeout"`
	CreatedAt   time.Time     `json:"createdAt"`
	ExpiresAt   time.Time     `json:"expiresAt"`
	// LastActivity is kept apart from the record by stores: Touch moves it, Update does not.
	LastActivity time.Time `json:"lastActivity"`
	EndedAt      time.Time `json:"endedAt"` // zero until ended

	Metadata map[string]string `json:"metadata,omitempty"`

	// PauseAfter is how long the session may go without a request until it is
	// paused by itself; 0 means that it never is.
	PauseAfter time.Duration `json:"pauseAfter,omitempty"`
	// PausedAt and PausedBy are set while the session is paused.
	PausedAt time.Time `json:"pausedAt,omitzero"`
	// ResumedAt is when it last went on after a pause; zero if it never did.
	ResumedAt time.Time `json:"resumedAt,omitzero"`
	PausedBy  PausedBy  `json:"pausedBy,omitempty"`
	// Certificate is that of the PicoD of a session bound to a key, in PEM; "" when it
	// has none.
	Certificate string `json:"certificate,omitempty"`
	// Strict: requests have to be signed for themselves.
	Strict bool `json:"strict,omitempty"`
	// Parent is the session that this one was forked from, Checkpoint the name
	// of the checkpoint it was made from.
	Parent     string `json:"parent,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"`

	// MaxDuration is the longest life that the template gives, MemoryBytes the
	// memory limit of its sandboxes, and Env what they are told at their start:
	// what copies of the session need when the template is no longer there.
	MaxDuration time.Duration     `json:"maxDuration,omitempty"`
	MemoryBytes int64             `json:"memoryBytes,omitempty"`
	Env         map[string]string `json:"env,omitempty"`

	// IdempotencyKey and RequestDigest are of the create request: the same
	// owner and key find this session again, and the digest tells whether it
	// was the same request. Both empty when no key was given.
	IdempotencyKey string `json:"idempotencyKey,omitempty"`
	RequestDigest  string `json:"requestDigest,omitempty"`
}

// InUTC is the session with its times as stores return them: in UTC, and
// without a reading of the monotonic clock.
func (s Session) InUTC() Session {
	for _, t := range []*time.Time{&s.CreatedAt, &s.ExpiresAt, &s.LastActivity, &s.EndedAt, &s.PausedAt, &s.ResumedAt} {
		*t = t.Round(0).UTC()
	}
	return s
}

// MayBecome reports whether an update may change the session into another:
// ErrFixed when it may not.
func (s Session) MayBecome(next Session) error {
	freed := next.IdempotencyKey == ""
	if next.Owner != s.Owner || !next.CreatedAt.Equal(s.CreatedAt) || next.IdempotencyKey != s.IdempotencyKey && !freed {
		return ErrFixed
	}
	return nil
}

// PausedBy says at whose wish a session is paused.
type PausedBy string

// Who pauses.
const (
	// PausedByOwner: the session then waits for its owner, however long its
	// life allows.
	PausedByOwner PausedBy = "owner"
	// PausedByIdling: nobody asked for it, so the idle time-out still holds.
	PausedByIdling PausedBy = "idle"
)

// Deadline is when the session ends if nothing more happens: the earlier of
// its idle time-out and its longest life. While it is paused by its owner it has
// no idle time-out.
func (s Session) Deadline() time.Time {
	if !s.Idles() {
		return s.ExpiresAt
	}
	idle := s.LastActivity.Add(s.IdleTimeout)
	if idle.Before(s.ExpiresAt) {
		return idle
	}
	return s.ExpiresAt
}

// Idles reports whether the idle time-out of the session holds.
func (s Session) Idles() bool { return s.State != api.StatePaused || s.PausedBy != PausedByOwner }

// PauseDue reports whether the session is to be paused by itself.
func (s Session) PauseDue(now time.Time) bool {
	return s.State == api.StateRunning && s.PauseAfter > 0 && !s.LastActivity.Add(s.PauseAfter).After(now)
}

// Ended reports whether the session is over.
func (s Session) Ended() bool { return s.State == api.StateEnded }

// API is the session as the native API shows it, with the times that the
// machine's clock has.
func (s Session) API(clock *Clock) api.Session {
	out := api.Session{
		SessionID: s.ID, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name,
		State: s.State, Fate: s.Fate, Reason: s.Reason,
		Owner: s.Owner, Auth: s.Auth, Strict: s.Strict, Isolation: s.Isolation, SandboxID: s.SandboxID,
		IdleTimeoutSeconds: s.IdleTimeout.Seconds(),
		CreatedAt:          clock.Wall(s.CreatedAt), ExpiresAt: clock.Wall(s.ExpiresAt), LastActivityAt: clock.Wall(s.LastActivity),
		Metadata: s.Metadata, Parent: s.Parent, Checkpoint: s.Checkpoint,
	}
	if s.Certificate != "" {
		out.Secure = &api.Secure{ServerName: api.SecureName(s.ID), Certificate: s.Certificate}
	}
	if s.State == api.StatePaused {
		at := clock.Wall(s.PausedAt)
		out.PausedAt = &at
	}
	if !s.ResumedAt.IsZero() {
		at := clock.Wall(s.ResumedAt)
		out.ResumedAt = &at
	}
	if !s.EndedAt.IsZero() {
		at := clock.Wall(s.EndedAt)
		out.EndedAt = &at
	}
	return out
}
