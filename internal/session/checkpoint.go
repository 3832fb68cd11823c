package session

import (
	"context"
	"errors"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// ErrNoCheckpoint says that there is no such checkpoint; stores return it
// wrapped.
var ErrNoCheckpoint = errors.New("checkpoint not found")

// Checkpoint is the record of the kept state of a session. It does not need the
// session, nor its template, to be there any longer. Times are as in Session.
type Checkpoint struct {
	Owner string `json:"owner"`
	// Name is unique among those of an owner.
	Name string `json:"name"`
	// Snapshot is the driver's name for the state itself; no two checkpoints
	// have the same.
	Snapshot  string `json:"snapshot"`
	SizeBytes int64  `json:"sizeBytes"`

	CreatedAt time.Time `json:"createdAt"`
	// UsedAt is kept apart from the record by stores: UseCheckpoint moves it.
	UsedAt time.Time `json:"usedAt"`

	// SessionID is the session it was taken of; the fields below are what new
	// sessions have of that one.
	SessionID   string            `json:"sessionId"`
	Kind        string            `json:"kind"`
	Namespace   string            `json:"namespace"`
	Template    string            `json:"template"`
	Auth        api.Auth          `json:"auth"`
	EntryPoints []api.EntryPoint  `json:"entryPoints"`
	IdleTimeout time.Duration     `json:"idleTimeout"`
	PauseAfter  time.Duration     `json:"pauseAfter,omitempty"`
	MaxDuration time.Duration     `json:"maxDuration"`
	MemoryBytes int64             `json:"memoryBytes"`
	Env         map[string]string `json:"env,omitempty"`
	Strict      bool              `json:"strict,omitempty"`
}

// API is the checkpoint as the native API shows it, with the times that the
// machine's clock has. retention is how long it is kept without use; 0 means for
// ever.
func (c Checkpoint) API(clock *Clock, retention time.Duration) api.Checkpoint {
	out := api.Checkpoint{
		Name: c.Name, SessionID: c.SessionID, Kind: c.Kind, Namespace: c.Namespace, TemplateName: c.Template,
		Owner: c.Owner, Auth: c.Auth, Strict: c.Strict, CreatedAt: clock.Wall(c.CreatedAt), SizeBytes: c.SizeBytes,
	}
	if retention > 0 {
		out.ExpiresAt = clock.Wall(c.UsedAt.Add(retention))
	}
	return out
}

// Checkpoints keeps the records of checkpoints. Its methods promise what those
// of Store promise.
type Checkpoints interface {
	// CreateCheckpoint adds a record; ErrExists when the owner has one of that
	// name, or when the snapshot has a record already.
	CreateCheckpoint(ctx context.Context, c Checkpoint) error

	// GetCheckpoint returns a record; ErrNoCheckpoint otherwise.
	GetCheckpoint(ctx context.Context, owner, name string) (Checkpoint, error)

	// ListCheckpoints returns the records of an owner, or of all when owner is
	// "", newest first, then by owner and name.
	ListCheckpoints(ctx context.Context, owner string) ([]Checkpoint, error)

	// UseCheckpoint moves UsedAt forward to at; an earlier time changes
	// nothing. ErrNoCheckpoint when there is none.
	UseCheckpoint(ctx context.Context, owner, name string, at time.Time) error

	// DeleteCheckpoint removes the record, if its snapshot still is the given
	// one, and ErrNoCheckpoint otherwise.
	DeleteCheckpoint(ctx context.Context, owner, name, snapshot string) error

	// UnusedCheckpoints returns up to limit records whose UsedAt is before the
	// given time, the oldest first.
	UnusedCheckpoints(ctx context.Context, usedBefore time.Time, limit int) ([]Checkpoint, error)
}
