// Package client talks to AgentCube: it creates sessions, runs commands in
// them and moves files in and out.
//
// A [Client] knows where the Workload Manager (control plane) and the Router
// (data plane) are; locally both are the same address. [Client.CreateSession]
// makes an RSA key for the new session and sends only its public half, so that
// nobody but the holder of the returned [Session] can run anything in it.
// Sessions created with [CreateOptions.Managed] have no such key: whoever holds
// the owner's token can use them, also from another process by [Client.Attach].
//
// A session can be paused to disk ([Session.Pause]), copied ([Session.Fork]), and
// kept under a name from which others begin ([Session.Checkpoint],
// [CreateOptions.Checkpoint]).
//
// Every method takes a context and stops when it ends. Errors that the servers
// answered with are [*APIError]; errors of getting there are [*ConnectError].
// Test for the common ones with errors.Is: [ErrNotFound], [ErrUnauthorized],
// [ErrSessionEnded], [ErrSessionPaused], [ErrExists], [ErrCheckpointUnusable],
// [ErrOverloaded], [ErrUnsupported], [ErrDiskFull], [ErrUnreachable].
//
// The package keeps no global state, reads no environment and no files, and
// all its types are safe for concurrent use.
package client
