package router

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// call is one request on its way to one sandbox.
type call struct {
	target   *target
	session  string
	endpoint endpoint
	prefix   string // of the path as the client knows it
	path     string
	query    string
	// agent: it is PicoD that answers, and not a server of the template's own.
	agent bool
	// authorization replaces the caller's; "" removes it. keepAuth leaves the
	// caller's as it is.
	authorization string
	keepAuth      bool
	// enough ends the wish that its session runs, which entering replaces.
	enough func()
	// recording is what will be recorded of it.
	recording *recording
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

func (rt *Router) newCall(t *target, rec session.Session, inv invocation, r *http.Request) (*call, error) {
	e, ok := choose(rec.EntryPoints, inv.path)
	if !ok {
		return nil, api.Errorf(http.StatusNotFound, api.CodeNoEntryPoint, "no entry point found for sandbox")
	}
	ep, ok := parseEndpoint(e)
	if !ok {
		return nil, api.Errorf(http.StatusNotFound, api.CodeNoEntryPoint, "entry point of the sandbox is not valid")
	}
	c := &call{target: t, session: rec.ID, endpoint: ep, prefix: inv.prefix, path: inv.path, query: r.URL.RawQuery,
		agent: rec.Auth != api.AuthNone}
	switch rec.Auth {
	case api.AuthClientKey:
		c.keepAuth = true
	case api.AuthManaged:
		token, err := t.tokens.take()
		if err != nil {
			return nil, unsigned(err)
		}
		c.authorization = "Bearer " + token
	}
	return c, nil
}

// unsigned is the answer when the Router cannot sign.
func unsigned(err error) *api.Error {
	return api.Errorf(http.StatusInternalServerError, api.CodeSigningFailed, "the request could not be signed").WithCause(err)
}

func (rt *Router) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      callTransport{rt},
		FlushInterval:  -1, // what the sandbox has sent, the client gets at once
		BufferPool:     rt.buffers,
		ModifyResponse: modifyResponse,
		ErrorHandler:   rt.proxyFailed,
		ErrorLog:       slog.NewLogLogger(rt.log.Handler(), slog.LevelDebug),
	}
}

func rewrite(p *httputil.ProxyRequest) {
	c := callOf(p.In.Context())
	p.Out.URL = &url.URL{Scheme: c.endpoint.scheme, Host: c.endpoint.host, Path: c.path, RawQuery: c.query}
	p.Out.Host = ""     // of the target
	p.Out.Trailer = nil // of which the values would not come along
	p.SetXForwarded()
	// The id of the answer, the access log and the sandbox's log is one.
	if id := httpserve.RequestID(p.In.Context()); id != "" {
		p.Out.Header.Set(api.HeaderRequestID, id)
	}
	if !c.keepAuth {
		p.Out.Header.Del("Authorization")
		if c.authorization != "" {
			p.Out.Header.Set("Authorization", c.authorization)
		}
	}
}

// callTransport sends each call over its session's own connections.
type callTransport struct{ rt *Router }

func (t callTransport) RoundTrip(r *http.Request) (*http.Response, error) { return t.rt.roundTrip(r) }

// proxyFailed answers when no answer came from the sandbox.
func (rt *Router) proxyFailed(w http.ResponseWriter, r *http.Request, err error) {
	c := callOf(r.Context())
	err = rt.unreachable(r.Context(), c, err)
	c.recording.failed(err)
	httpserve.WriteError(w, r, err)
}

const bufferSize = 64 << 10

type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}}
}

func (p *bufferPool) Get() []byte  { return *p.pool.Get().(*[]byte) }
func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }
