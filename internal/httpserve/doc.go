// Package httpserve is what every HTTP service of AgentCube shares: the
// middleware around a handler, the one place where errors become answers, and
// a server that drains.
//
// Middleware.Wrap gives a handler request ids, an access log, panic recovery and
// the check of Host and Origin that keeps web pages out. Handlers that can fail
// are HandlerFuncs: they return an error and WriteError turns it, whatever it
// is, into the JSON body of api.Error. Server listens, serves and shuts down.
package httpserve
