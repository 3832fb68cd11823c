// Package httpguard bounds what a client can make an HTTP server hold without
// giving anything for it: connections, bodies that do not arrive, answers that are
// not taken. It is around the handlers of every listener, on the host and in the
// sandbox.
//
// [Connections] bounds how many there are and, when there is no room, gives up
// those that no request is on. [Transfers] breaks off a body or an answer that does
// not get on; how long a handler takes is no matter to it. It also ends connections
// whose next request may not begin where this server thinks that it does. [Sorter]
// tells connections with TLS from those in plain text, and waits for neither long.
package httpguard
