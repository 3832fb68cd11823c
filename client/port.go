package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// maxPortBody bounds the body of a request to a port in bytes: it is read first, as the
// signature of the request is of it.
const maxPortBody = 32 << 20

// Port returns what carries requests to a server that listens at a port inside the
// session, on its loopback; host and scheme of their URLs do not count. They are
// signed and, as all that is sent to the session, encrypted to the sandbox where that
// is possible. A request that asks for another protocol, such as a web socket, gets an
// answer with status 101 whose body is an io.ReadWriteCloser. An answer with status 502
// may be AgentCube's, and says then in its field "reason": PORT_UNREACHABLE. Bodies of
// requests are bounded to 32 MiB. A session with open connections, on which nothing
// passes, counts as idle.
func (s *Session) Port(port uint16) http.RoundTripper { return portTransport{s, port} }

type portTransport struct {
	s    *Session
	port uint16
}

// RoundTrip implements http.RoundTripper.
func (p portTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil && r.Body != http.NoBody {
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, maxPortBody+1))
		if err = errors.Join(err, r.Body.Close()); err == nil && len(body) > maxPortBody {
			err = fmt.Errorf("the body is longer than %d bytes", maxPortBody)
		}
		if err != nil {
			return nil, fmt.Errorf("send to port %d: %w", p.port, err)
		}
	}
	// Cleaned, as whoever carries the request may do it, and a signature is of one path.
	inside := path.Clean("/" + r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/") && inside != "/" {
		inside += "/"
	}
	in := p.s.invocation(r.Method, "api/ports/"+strconv.Itoa(int(p.port))+inside)
	in.query, in.header, in.raw = r.URL.Query(), r.Header.Clone(), body
	if in.header == nil {
		in.header = http.Header{}
	}
	req, err := p.s.c.request(r.Context(), in)
	if err != nil {
		return nil, err
	}
	hc := p.s.c.http
	if in.secure != nil {
		hc = in.secure.http
	}
	transport := hc.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		_, why := p.s.c.askWhy(r.Context(), in, transportError(r.Context(), in.base, err))
		return nil, fmt.Errorf("send to port %d: %w", p.port, why)
	}
	return resp, nil
}
