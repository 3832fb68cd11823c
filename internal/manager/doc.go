// Package manager is the Workload Manager, AgentCube's control plane: it
// creates sessions, shows them, and ends them when their owner, their time or
// their sandbox says so.
//
// New makes a Manager, Open settles what an earlier process left behind, Run
// watches the sessions until its context ends, Close stops. The Manager is an
// http.Handler for the control-plane API and creates sessions for the Router
// through Create.
//
// # What survives a kill
//
// The record of a session is written before its sandbox is made, and a session
// is marked as ended before its sandbox is removed. Whatever moment a process
// dies at, Open therefore finds one of four things: a pending record, which was
// never answered for and ends as failed; a running record with its sandbox,
// which lives on; a running record without one, which ends as host-lost; or a
// sandbox without a living record, which is removed. A client that was told
// that its session ended never meets it again.
package manager
