package audit

import "time"

// Action is what an Event is about.
type Action string

// The actions. Those of sessions, checkpoints, templates and tokens are recorded once
// they are done; who asked in vain has a Refused.
const (
	SessionCreated Action = "session.created"
	SessionForked  Action = "session.forked" // Session is the new one, Parent what it is a copy of
	SessionPaused  Action = "session.paused"
	SessionResumed Action = "session.resumed"
	SessionEnded   Action = "session.ended"
	// SessionSealed is the head of the session's own record, when it is about to be
	// paused or has ended.
	SessionSealed     Action = "session.sealed"
	CheckpointCreated Action = "checkpoint.created"
	CheckpointDeleted Action = "checkpoint.deleted"
	TemplatePrepared  Action = "template.prepared"
	TokenCreated      Action = "token.created"
	TokenRevoked      Action = "token.revoked"
	// Refused is a request to the control plane that failed, or one that did not
	// come to a sandbox. Those of callers who could not say who they are share a
	// line a second, with their Count.
	Refused Action = "request.refused"
	// Request is one to a sandbox that the Router could read.
	Request Action = "sandbox.request"
	// TunnelOpened and TunnelClosed are an encrypted connection to a sandbox, of
	// which the Router knows nothing but when, and how much.
	TunnelOpened Action = "tunnel.opened"
	TunnelClosed Action = "tunnel.closed"
	// Started and Stopped are of the record itself.
	Started Action = "audit.started"
	Stopped Action = "audit.stopped"
	// Recovered: the end of the record was a part of a line, of Torn bytes, which
	// was taken away.
	Recovered Action = "audit.recovered"
	// Missing: Count events could not be written and are lost.
	Missing Action = "audit.missing"
	// Removed: the lines up to and with the head Removed were taken away, as the
	// settings say.
	Removed Action = "audit.removed"
)

// Actors that are not the name of a caller.
const (
	// ActorKey is who signed with the key that the session is bound to.
	ActorKey = "session-key"
	// ActorSystem is AgentCube itself.
	ActorSystem = "agentcube"
)

// Event is one line of the server's record.
type Event struct {
	Time   time.Time `json:"time"`
	Action Action    `json:"action"`
	// Actor is the name of who asked: of a token, or one of the Actor constants.
	// Empty: nobody knows.
	Actor string `json:"actor,omitempty"`
	// Owner of what this is about.
	Owner   string `json:"owner,omitempty"`
	Session string `json:"session,omitempty"`
	// RequestID is that of the answer, of the log, and of what PicoD logs.
	RequestID string `json:"requestId,omitempty"`
	// From is the address that the request came from.
	From string `json:"from,omitempty"`

	Method string `json:"method,omitempty"`
	// Path is that of the request; below a session, as its sandbox sees it.
	Path   string `json:"path,omitempty"`
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	// Seconds that it took.
	Seconds float64 `json:"seconds,omitempty"`
	// Input and Output are the bodies of request and answer.
	Input  *Body `json:"input,omitempty"`
	Output *Body `json:"output,omitempty"`
	// Signature is the JSON Web Token with which the client signed exactly this
	// request, RFC 7519. Tokens that are good for more than it are not recorded.
	Signature string `json:"signature,omitempty"`
	// Aborted: one of the two sides broke off.
	Aborted bool `json:"aborted,omitempty"`

	Template   string `json:"template,omitempty"` // namespace/name
	Parent     string `json:"parent,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"`
	Token      string `json:"token,omitempty"` // its name
	Scopes     string `json:"scopes,omitempty"`
	Auth       string `json:"auth,omitempty"`
	// KeySHA256 is the SHA-256 of the session's public key, as DER (PKIX), in hex.
	KeySHA256 string `json:"key_sha256,omitempty"`
	// Certificate is the PEM of what the session's PicoD signs statements with.
	Certificate string `json:"certificate,omitempty"`
	Fate        string `json:"fate,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Seal        *Seal  `json:"seal,omitempty"`

	Count   uint64 `json:"count,omitempty"`
	Torn    int64  `json:"torn,omitempty"`
	Removed *Head  `json:"removed,omitempty"`
}

// Body is what is recorded of a body.
type Body struct {
	Bytes int64 `json:"bytes"`
	// SHA256 in hex of the bytes, as they were carried; empty where they were not
	// read, or not to the end.
	SHA256 string `json:"sha256,omitempty"`
	// Encoding is the Content-Encoding, if there is one.
	Encoding string `json:"encoding,omitempty"`
	// Content is the beginning of it, where the operator has turned that on.
	Content []byte `json:"content,omitempty"`
}

// Seal is the head of a session's own record when the session paused or ended.
type Seal struct {
	// Statement is a JSON Web Token of PicoD's; empty when there is none.
	Statement string `json:"statement,omitempty"`
	// Missing is why there is none.
	Missing string `json:"missing,omitempty"`
}

// Entry is one line of a session's own record: a request that reached PicoD on an
// encrypted connection.
type Entry struct {
	Time      time.Time `json:"time"`
	RequestID string    `json:"requestId"`
	// Trace is the id of the trace that the client has said it is part of.
	Trace  string `json:"trace,omitempty"`
	Method string `json:"method"`
	// Path as the client has sent it, with its query.
	Path    string  `json:"path"`
	Status  int     `json:"status"`
	Code    string  `json:"code,omitempty"`
	Seconds float64 `json:"seconds"`
	Input   *Body   `json:"input,omitempty"`
	Output  *Body   `json:"output,omitempty"`
	// Signature is the JSON Web Token of the request, if that was valid, and
	// Form the one that its form ended with.
	Signature string `json:"signature,omitempty"`
	Form      string `json:"form,omitempty"`
	// Aborted: one of the two sides broke off.
	Aborted bool `json:"aborted,omitempty"`
}
