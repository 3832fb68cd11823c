// Package picod is the agent inside a sandbox: over HTTP it runs commands and
// moves files for whoever holds the key of the session.
//
// Make a [Server] from a [Config] with New; [Server.Run] opens it, serves until
// its context ends, and drains. Nothing here reads the environment or exits;
// cmd/picod does both.
//
// # Routes
//
//	GET  /health           liveness, without authentication
//	POST /init             lock to a session key; only with a bootstrap key
//	POST /api/execute      run a command
//	POST /api/files        write a file, from JSON or multipart/form-data
//	GET  /api/files/PATH   read a file
//	GET  /api/files?path=  list a directory
//
// /init may bring variables for all commands and files for the workspace. The
// files are written first: if one cannot be, there is no session, and "file" in
// the error is its index. In a copy of a sandbox the variables of the session
// that was copied are still there, and those of /init come over them.
//
// Every error is {"error": text, "code": status, "reason": STABLE_CODE,
// "requestId": id}, with a "detail" where there is one to give. Reasons do not
// change; texts may, except those that existing clients match.
//
// # Commands
//
// A command that was started, not found, or timed out is an answer with status
// 200; see package proc for how it is bounded and ended. Its answer comes at the
// latest two seconds after its time-out. When its direct child ends, the answer
// is given with what is in the pipes at that moment: processes left in the
// background go on, detached. When it times out, or the client goes away, the
// whole tree ends.
//
// Of each stream the beginning and the end are kept. Fields beyond the original
// contract appear only when they say something: stdout_truncated, stdout_bytes
// (how much was written), and stdout_base64 (the kept bytes) when the output is
// not UTF-8, in which case the text has U+FFFD in their place; the same for
// stderr.
//
// # Files
//
// See package jail. A mode that is given is applied exactly, whatever the umask
// and whether or not the file existed; without one a new file gets 0644 and an
// existing one keeps what it has. A path to download is first taken as relative
// to the workspace; if nothing is there and "/"+path lies inside the workspace
// it is taken as that, because older clients cut the leading slash off.
//
// # Bodies
//
// A token may be bound to a body by its hash. The hash is computed while the
// body streams to a temporary file; nothing visible happens before it matched.
package picod
