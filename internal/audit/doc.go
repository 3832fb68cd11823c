// Package audit keeps the server's audit record on disk: files of chained lines
// (package api/audit), each named for its first, of which the newest is appended to.
//
// A [Log] is made with [New], opened with Open, and written to with Append, which
// does not fail: what cannot be written now, as the disk is full, waits in memory, in
// order, and [Log.Ready] says why until it has been written. So who begins
// something asks Ready first, and who ends something, or takes away, does not.
//
// What Append has returned from survives the end of this process; the end of the
// machine takes at most the last second. One process writes, which a lock sees to;
// anybody may read at any time, with [Verify] and [Read].
package audit
