package api

import "time"

// Kinds of templates a session can be made from.
const (
	KindCodeInterpreter = "CodeInterpreter"
	KindAgentRuntime    = "AgentRuntime"
)

// Headers of the protocol.
const (
	// HeaderSessionID names the session of a data-plane request, and is set on
	// every data-plane answer that belongs to a session.
	HeaderSessionID = "X-Agentcube-Session-Id"
	// HeaderRequestID is taken from the request when sane, else made, and is set on every answer.
	HeaderRequestID = "X-Request-Id"
	// HeaderTraceID is on answers to requests that are part of a trace: its id, of 32
	// hexadecimal digits.
	HeaderTraceID = "X-Agentcube-Trace-Id"
	// HeaderSessionSignature on fork and checkpoint of a key-bound session: a
	// JWT signed with the session key (RS256 or PS256), with the claims "sid"
	// (the session), "htm" and "htu" (method and path of the request),
	// "body_sha256" (of its body, in hexadecimal), "jti", "iat" and "exp" (at
	// most five minutes later). It shows that whoever holds the key agrees to a copy.
	HeaderSessionSignature = "X-Agentcube-Session-Signature"
	// HeaderIdempotencyKey on create: the same key gives the same session.
	HeaderIdempotencyKey = "Idempotency-Key"
)

// CreateRequest is the body of POST /v1/code-interpreter and
// /v1/agent-runtime. Unknown fields are ignored, as older clients send more.
type CreateRequest struct {
	// Name and Namespace name the template; both are required.
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	// PublicKey is the session key's public half: base64 (standard alphabet,
	// padding optional) of a PEM "PUBLIC KEY" block holding an RSA key of at
	// least 2048 bits. Empty makes a managed session, for which the Router signs.
	PublicKey string `json:"publicKey,omitempty"`
	// TTL, in seconds, shortens the session's longest life; 0 means the template's.
	TTL int64 `json:"ttl,omitempty"`
	// Metadata is kept with the session and shown by get and list.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Checkpoint names a checkpoint of the caller's to start from. Name and
	// Namespace may then be empty; if not, they must be those of the
	// checkpoint's template.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Env are variables of all commands of the session, over those of the
	// template and, with Checkpoint, over those of the session it was taken of;
	// a command's own come over them. At most 128, with 64 KiB in all; names are
	// [A-Za-z_][A-Za-z0-9_]*, except PWD. No answer repeats them.
	Env map[string]string `json:"env,omitempty"`
	// Files are in the workspace when the session begins, in place of what is
	// there: at most 64, with 1 MiB in all. No answer repeats them.
	Files []File `json:"files,omitempty"`
}

// File is a file that a session begins with. It belongs to the user of commands.
type File struct {
	// Path is where it goes, as in uploads: within the workspace, at which
	// relative paths begin. Missing folders are made.
	Path string `json:"path"`
	// Content is in base64 with padding in JSON; it may be empty, but not null.
	Content []byte `json:"content"`
	// Mode are its permissions in octal, 0000 to 0777; empty means 0644.
	Mode string `json:"mode,omitempty"`
}

// EntryPoint is a port of a sandbox that the Router forwards to.
type EntryPoint struct {
	// Path is the prefix of invocation paths that go to this port.
	Path string `json:"path"`
	// Protocol is "HTTP" or "HTTPS".
	Protocol string `json:"protocol"`
	// Endpoint is host:port. Locally the host is the sandbox id: it can be
	// reached through the Router only.
	Endpoint string `json:"endpoint"`
}

// CreateResponse answers a create request, with status 200.
type CreateResponse struct {
	Kind        string       `json:"kind"` // always "Sandbox"
	SessionID   string       `json:"sessionId"`
	SandboxID   string       `json:"sandboxId"`
	SandboxName string       `json:"sandboxName"`
	EntryPoints []EntryPoint `json:"entryPoints"`
	OwnerID     string       `json:"ownerId,omitempty"`
	// Session describes the new session in full.
	Session Session `json:"session"`
	// Variables and Files count what the session has of Env and Files of the
	// request. Servers that know neither leave both out.
	Variables int `json:"variables,omitempty"`
	Files     int `json:"files,omitempty"`
}

// State of a session: pending, running, paused, ended.
type State string

// The states: pending → running ⇄ paused → ended.
const (
	StatePending State = "pending"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateEnded   State = "ended"
)

// Fate is why a session ended. It is kept after the end.
type Fate string

// The fates.
const (
	FateDeleted     Fate = "deleted"       // its owner deleted it, or an administrator
	FateIdle        Fate = "idle"          // no request for the idle time-out
	FateExpired     Fate = "expired"       // its longest life or ttl was over
	FateOutOfMemory Fate = "out-of-memory" // the sandbox went over its memory limit
	FateHostLost    Fate = "host-lost"     // the sandbox was gone when AgentCube came back, or its host died
	FateFailed      Fate = "failed"        // it could not be made, or the sandbox died
)

// Auth says who can sign requests for a session.
type Auth string

// The kinds of sessions.
const (
	// AuthClientKey: only the holder of the session's private key.
	AuthClientKey Auth = "client-key"
	// AuthManaged: the Router signs for the owner.
	AuthManaged Auth = "managed"
	// AuthNone: what runs in the sandbox checks nothing itself (templates with
	// authMode none); the Router lets only the owner in and signs nothing.
	AuthNone Auth = "none"
)

// Session is what the native API shows of a session. Times are UTC, RFC 3339.
type Session struct {
	SessionID string `json:"sessionId"`
	// Kind, Namespace and Name say which template it was made from.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     State  `json:"state"`
	// Fate and Reason are set once the session has ended: Fate is one of the
	// stable words, Reason one sentence for people.
	Fate   Fate   `json:"fate,omitempty"`
	Reason string `json:"reason,omitempty"`
	Owner  string `json:"owner"`
	Auth   Auth   `json:"auth"`
	// Strict says that every request has to be signed for itself (method, path,
	// session, body, once), and not only by the session's key.
	Strict bool `json:"strict"`
	// Secure says how to encrypt from end to end; nil where that is not possible.
	Secure *Secure `json:"secure,omitempty"`
	// Isolation is what separates the sandbox from its host, as it really is:
	// "gvisor" (systrap or kvm platform), "kata", "runc", "none".
	Isolation string `json:"isolation"`
	SandboxID string `json:"sandboxId"`
	// IdleTimeoutSeconds is how long the session may go without a request.
	IdleTimeoutSeconds float64    `json:"idleTimeoutSeconds"`
	CreatedAt          time.Time  `json:"createdAt"`
	ExpiresAt          time.Time  `json:"expiresAt"`
	LastActivityAt     time.Time  `json:"lastActivityAt"`
	EndedAt            *time.Time `json:"endedAt,omitempty"`
	// PausedAt is set while the session is paused.
	PausedAt *time.Time `json:"pausedAt,omitempty"`
	// ResumedAt is when the session last went on after a pause; nil if it never did.
	ResumedAt *time.Time        `json:"resumedAt,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	// Parent is the session that this one was forked from, Checkpoint the name
	// of the checkpoint it was made from.
	Parent     string `json:"parent,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"`
}

// SessionList is one page of GET /v1/sessions, newest session first.
type SessionList struct {
	// Sessions is never null.
	Sessions []Session `json:"sessions"`
	// NextPageToken, when not empty, gets the next page as ?pageToken=.
	NextPageToken string `json:"nextPageToken,omitempty"`
}

// ForkRequest is the body of POST /v1/sessions/{id}/fork. Either all the new
// sessions are made or none.
type ForkRequest struct {
	// Count is how many, 1 to 64; 0 means as many as there are PublicKeys, or 1.
	Count int `json:"count,omitempty"`
	// PublicKeys are those of the new sessions, one each, in the form of
	// CreateRequest.PublicKey. A fork of a key-bound session needs them, and
	// one of a managed session must not have any.
	PublicKeys []string `json:"publicKeys,omitempty"`
	// TTL and Metadata are those of the new sessions, as in CreateRequest.
	TTL      int64             `json:"ttl,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// ForkResponse answers a fork.
type ForkResponse struct {
	Sessions []CreateResponse `json:"sessions"`
}

// CheckpointRequest is the body of POST /v1/sessions/{id}/checkpoints.
type CheckpointRequest struct {
	// Name is 1 to 128 characters of [A-Za-z0-9._-], beginning with a letter or
	// digit; it is unique among the checkpoints of an owner.
	Name string `json:"name"`
}

// Checkpoint is the kept state of a session, memory and files, from which new
// sessions can be made.
type Checkpoint struct {
	Name      string `json:"name"`
	SessionID string `json:"sessionId"` // it was taken of
	// Kind, Namespace and TemplateName are the template of that session.
	Kind         string    `json:"kind"`
	Namespace    string    `json:"namespace"`
	TemplateName string    `json:"templateName"`
	Owner        string    `json:"owner"`
	Auth         Auth      `json:"auth"`
	Strict       bool      `json:"strict"`
	CreatedAt    time.Time `json:"createdAt"`
	// ExpiresAt is when it is removed; every use moves it. Zero, and absent in
	// JSON: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// SizeBytes is the room it takes on disk.
	SizeBytes int64 `json:"sizeBytes"`
}

// CheckpointList is the body of GET /v1/checkpoints, newest first.
type CheckpointList struct {
	// Checkpoints is never null.
	Checkpoints []Checkpoint `json:"checkpoints"`
}

// Scope is something that the holder of a token may do.
type Scope string

// The scopes.
const (
	// ScopeCreate: make sessions, copies of them, and checkpoints.
	ScopeCreate Scope = "create"
	// ScopeUse: see, use, pause, resume and end what the caller owns.
	ScopeUse Scope = "use"
	// ScopeAdmin: manage tokens, and see and end what others own, without using it.
	ScopeAdmin Scope = "admin"
)

// TokenRequest is the body of POST /v1/tokens.
type TokenRequest struct {
	// Name is 1 to 63 characters of [a-z0-9._-], beginning with a letter or digit,
	// and was never another token's. What the holder makes is owned by it.
	Name string `json:"name"`
	// Scopes of the token, at least one, and none that its maker does not have.
	Scopes []Scope `json:"scopes"`
	// TTL, in seconds, or ExpiresAt, by the server's clock, says how long the
	// token is valid: at most ten years, or for ever when neither is given.
	TTL       int64     `json:"ttl,omitempty"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// Token describes a token, without the token itself. Times are those of the
// server's clock, UTC.
type Token struct {
	Name   string  `json:"name"`
	Scopes []Scope `json:"scopes"`
	// CreatedBy is the owner whose token made this one.
	CreatedBy string    `json:"createdBy"`
	CreatedAt time.Time `json:"createdAt"`
	// ExpiresAt is when it ends; zero, and absent in JSON: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// LastUsedAt is a minute behind at most; zero, and absent in JSON: never used.
	LastUsedAt time.Time `json:"lastUsedAt,omitzero"`
	// RevokedAt is when it was revoked; zero, and absent in JSON: it was not.
	RevokedAt time.Time `json:"revokedAt,omitzero"`
}

// CreatedToken answers POST /v1/tokens: the one time that a token is shown.
type CreatedToken struct {
	// Token is the token itself, for "Authorization: Bearer <token>".
	Token string `json:"token"`
	Info  Token  `json:"info"`
}

// TokenList is one page of GET /v1/tokens, by name.
type TokenList struct {
	// Tokens is never null.
	Tokens []Token `json:"tokens"`
	// NextPageToken, when not empty, gets the next page as ?pageToken=.
	NextPageToken string `json:"nextPageToken,omitempty"`
}

// PrepareStep is one line of the answer to
// POST /v1/templates/{namespace}/{name}/prepare, which is sent as newline-delimited JSON.
type PrepareStep struct {
	// Step is what is being done now, in words.
	Step string `json:"step,omitempty"`
	// Done is set on the last line.
	Done bool `json:"done"`
	// Error is set on the last line of a preparation that failed.
	Error *Error `json:"error,omitempty"`
}
