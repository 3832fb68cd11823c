// Package manager is the Workload Manager, AgentCube's control plane: it
// creates sessions, shows them, and ends them when their owner, their time or
// their sandbox says so.
//
// New makes a Manager, Open settles what an earlier process left behind, Run
// watches the sessions until its context ends, Close stops. The Manager is an
// http.Handler for the control-plane API and creates sessions for the Router
// through Create.
//
// # Owners
//
// Every caller is an owner, to whom the sessions and checkpoints belong that it has
// made; to others they do not exist, except that an administrator sees and ends
// them. The table of routes says which scope each needs. No owner keeps the others
// waiting: MaxPerOwner and MaxCreateRate bound what one may have and ask for, and
// those that wait for a sandbox take turns by owner.
//
// # Sleep
//
// A session is paused at its owner's wish, or by itself after the template's
// pauseAfter without a request, and resumed at its owner's wish or for its next
// request. It goes one way at a time; all who want the same wait for the same
// transition, which does not depend on them. What is paused takes no room of
// MaxSandboxes and MemoryBudget, so that a resume may have to be refused.
//
// A fork or checkpoint is a snapshot of a session's sandbox, from which others
// start; that of a fork is gone when they have.
//
// # Time
//
// Sessions live by a session.Clock, which does not jump when the machine's clock
// is set: whatever is compared or recorded is of it, and whatever is shown is of
// the machine's. Run follows the machine's clock and notes in the store how the
// two differ, with which the next process goes on.
//
// # Several at once
//
// With Config.Shared other processes make and end sessions in the same store, with the
// same sandboxes. A record is changed by one of them at a time, and ended by one, so what
// several do at once is done once. What looks left behind may be somebody's work: Open
// ends nothing, and settling, from time to time, ends and removes what is too old to be
// that. Limits, rates and used signatures count in the store, and Close leaves the
// sessions to the others.
//
// # What survives a kill
//
// The record of a session is written before its sandbox is made, and a session
// is marked as ended before its sandbox is removed. Whatever moment a process
// dies at, Open therefore finds one of four things: a pending record, which was
// never answered for and ends as failed; a record with its sandbox, which lives
// on, running or paused as the sandbox is; a record without one, which ends as
// host-lost; or a sandbox without a living record, which is removed. A client
// that was told that its session ended never meets it again, and one that was
// told that it is paused finds it so.
//
// The record of a checkpoint is written when its snapshot is safe, and removed
// before it. A snapshot without a record is therefore nobody's, and goes.
package manager
