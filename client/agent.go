package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/volcano-sh/agentcube/api"
)

// Agent carries requests to an agent's own server: the program that the sessions of
// an AgentRuntime run. All requests go to one session.
type Agent struct {
	c               *Client
	namespace, name string

	mu      sync.Mutex // held by the one that makes the session
	session string
}

// Agent returns what carries requests to the session of an agent: of the template of
// that namespace (DefaultNamespace if "") and name. Without a session one is made by the
// first request, and then waits for the next until its idle time-out, unless it is
// deleted: see Agent.SessionID and Client.DeleteSession.
func (c *Client) Agent(namespace, name, sessionID string) *Agent {
	if namespace == "" {
		namespace = DefaultNamespace
	}
	return &Agent{c: c, namespace: namespace, name: name, session: sessionID}
}

// SessionID is the id of the session, or "" while there is none.
func (a *Agent) SessionID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

// RoundTrip implements http.RoundTripper. Path, query, method, headers and body of the
// request go to the agent, and its answer comes back, as it is and piece by piece;
// scheme and host of the URL do not count, and its Authorization is replaced by what
// AgentCube wants to see, which the agent does not get. Answers with an error status are
// the agent's or AgentCube's: see ReadError. Requests wait while another one makes the
// session.
func (a *Agent) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	if a.session != "" {
		session := a.session
		a.mu.Unlock()
		return a.send(r, session)
	}
	defer a.mu.Unlock()
	resp, err := a.send(r, "")
	if err == nil {
		a.session = resp.Header.Get(api.HeaderSessionID)
	}
	return resp, err
}

func (a *Agent) send(r *http.Request, session string) (*http.Response, error) {
	out, err := a.request(r, session)
	if err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, fmt.Errorf("send to agent: %w", err)
	}
	transport := a.c.http.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	resp, err := transport.RoundTrip(out)
	if err != nil {
		return nil, fmt.Errorf("send to agent: %w", transportError(r.Context(), a.c.router, err))
	}
	return resp, nil
}

// request is the caller's as the Router gets it.
func (a *Agent) request(r *http.Request, session string) (*http.Request, error) {
	inside := r.URL.EscapedPath()
	if inside == "" {
		inside = "/"
	}
	target, err := url.Parse(a.c.router.String() + "/v1/namespaces/" + url.PathEscape(a.namespace) + "/agent-runtimes/" +
		url.PathEscape(a.name) + "/invocations" + inside)
	if err != nil {
		return nil, err
	}
	target.RawQuery = r.URL.RawQuery
	out := r.Clone(r.Context())
	out.URL, out.Host, out.RequestURI = target, "", ""
	if out.Header == nil {
		out.Header = http.Header{}
	}
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", a.c.agent)
	}
	out.Header.Del("Authorization")
	token, err := a.c.bearer(a.c.router)
	if err != nil {
		return nil, err
	}
	if token != "" {
		out.Header.Set("Authorization", "Bearer "+token)
	}
	out.Header.Del(api.HeaderSessionID)
	if session != "" {
		out.Header.Set(api.HeaderSessionID, session)
	}
	return out, nil
}

// ReadError reads the body of an answer with an error status, and returns AgentCube's
// own error, if it is one: an *APIError. Otherwise the answer is the agent's, and body
// is what it has said, at most 64 KiB of it.
func ReadError(resp *http.Response) (body []byte, err error) {
	body, e := readError(resp)
	if e.Code != "" && e.RequestID != "" {
		return nil, e
	}
	return body, nil
}
