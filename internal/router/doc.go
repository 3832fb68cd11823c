// Package router is the data plane: it carries the requests of a session to its
// sandbox and the answers back, unread and unchanged.
//
// A Router is an http.Handler. A request names its template in the path and its
// session in the header X-Agentcube-Session-Id; without the header a session is
// made for the caller. What is checked before anything is forwarded:
//
//   - the session exists and belongs to the template that the path names;
//   - for a key-bound session, the request is signed by the session's key (PicoD
//     checks again, and more); Authorization then passes untouched;
//   - for any other session, the caller is its owner, whose token has the scope
//     use; Authorization is then replaced by the Router's own token, or, where
//     nothing in the sandbox would check one, removed.
//
// Requests count as those of the session's owner, who may have so many at a time,
// and end when the token is revoked that let them in; those that a key let in do
// not depend on it. They count as activity of their session for as long as they
// last. A request to a session that is paused waits until it has been woken; one
// that a pause cuts off is answered so, or its stream ends.
//
// What the Router knows of a running session it keeps in memory. In the process of the
// Workload Manager it is told of every change. In one of its own (Config.MaxRecordAge)
// it looks: at the record when a request comes and that is old, when a sandbox breaks
// off, and every few seconds while requests are under way, and then at the tokens that
// let them in, too.
package router
