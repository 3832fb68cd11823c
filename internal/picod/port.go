package picod

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// portPath is where the servers are that user code runs in the sandbox:
// /api/ports/<port>/<path>.
const portPath = "/api/ports/"

// portDial bounds the wait for a connection within the sandbox.
const portDial = 5 * time.Second

// newPorts makes what requests to ports go through. A connection serves one of them:
// what listens there may come and go, as the session sleeps and wakes.
func newPorts(log *slog.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(*httputil.ProxyRequest) {},
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: portDial}).DialContext, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: 256 << 10,
		},
		FlushInterval: -1, // what the server has sent, the client gets at once
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// port carries a request to a port of the sandbox, with all methods, and with other
// protocols over the connection where both sides agree (RFC 9110, section 7.8), as web
// sockets do. Its body is read first, since it has to be the one that was signed.
func (q *request) port() *problem {
	claims, p := q.authorize()
	if p != nil {
		return p
	}
	to, p := q.portTarget()
	if p != nil {
		return p
	}
	body, p := q.readBody(MaxBody)
	if p != nil {
		return p
	}
	sum := hashOf(body)
	q.note.input(int64(len(body)), sum)
	if len(body) > 0 || claims.HasBody {
		if err := claims.CheckBody(sum); err != nil {
			return refused(err)
		}
	}
	q.freeBody()
	out := q.r.Clone(q.r.Context())
	out.URL, out.Host = to, ""
	out.Header.Del("Authorization")
	out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	// The answer is the server's: what PicoD says of its own has no place in it.
	for _, name := range []string{"Cache-Control", "Content-Security-Policy", "X-Content-Type-Options"} {
		q.w.Header().Del(name)
	}
	proxy := *q.ports
	proxy.ErrorHandler = func(_ http.ResponseWriter, _ *http.Request, err error) {
		q.log.Debug("port not reached", "requestId", q.id, "error", err)
		q.fail(fault(http.StatusBadGateway, "PORT_UNREACHABLE", "nothing in the sandbox answers at port "+to.Port()))
	}
	proxy.ServeHTTP(q.w, out)
	return nil
}

// portTarget is where a request goes.
func (q *request) portTarget() (*url.URL, *problem) {
	text, _, _ := strings.Cut(strings.TrimPrefix(q.r.URL.Path, portPath), "/")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != text {
		return nil, fault(http.StatusBadRequest, "INVALID_PORT", "Invalid port: it is a number from 1 to 65535")
	}
	if int(port) == q.cfg.Port {
		return nil, fault(http.StatusBadRequest, "INVALID_PORT", "Invalid port: it is that of the agent itself")
	}
	escaped := strings.TrimPrefix(q.r.URL.EscapedPath(), portPath+text)
	path, err := url.PathUnescape(escaped)
	if err != nil || path == "" {
		path, escaped = "/", "/"
	}
	return &url.URL{
		Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port), Path: path, RawPath: escaped, RawQuery: q.r.URL.RawQuery,
	}, nil
}
