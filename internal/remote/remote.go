// Package remote is the Workload Manager for a Router in another process: it asks for
// sessions over HTTP, in the name of whoever asked the Router.
//
// The Router is not trusted to say who that is. What goes to the Workload Manager is the
// caller's own Authorization header, which it checks itself, and decides by what the
// caller may do. So a Router that was taken over can do what those can whose requests
// it sees, and no more. A refusal of the Workload Manager is the answer to the
// Router's caller, with its status, code and Retry-After.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/trace"
)

const (
	// DefaultTimeout is how long the Workload Manager may take for a session.
	DefaultTimeout = 2 * time.Minute
	// maxAnswer bounds an answer.
	maxAnswer = 1 << 20
	// maxRetryAfter bounds what is believed of a Retry-After header, in seconds.
	maxRetryAfter = 3600
	// retryPause is before the one more try when nothing could be sent: by then the name
	// of several servers may lead to another of them.
	retryPause = 100 * time.Millisecond
)

// Config of a Manager. URL is required.
type Config struct {
	// URL is where the Workload Manager's API begins: http:// or https://, a host, and a
	// path if it has one.
	URL string
	// Transport makes the requests; nil means NewTransport(nil). Redirects are not
	// followed.
	Transport http.RoundTripper
	// Timeout bounds a call; 0 means DefaultTimeout.
	Timeout time.Duration
}

// alive has a Workload Manager that is gone without a word noticed within half a minute.
func alive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}
}

// NewTransport makes connections that are kept for a while. settings say with whom and
// as whom https:// URLs are spoken to; nil means those that the machine trusts, as
// nobody.
func NewTransport(settings *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: alive()}).DialContext,
		TLSClientConfig:        settings,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Manager is a Workload Manager in another process. It makes and wakes sessions for a
// router.Router, and is safe for concurrent use.
type Manager struct {
	base      string
	transport http.RoundTripper
	timeout   time.Duration
}

// New checks cfg and returns a Manager. It makes no connection.
func New(cfg Config) (*Manager, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("parse Workload Manager URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("parse Workload Manager URL: %q is not an http:// or https:// address", cfg.URL)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("parse Workload Manager URL: it must not hold a query, a fragment or a user")
	}
	m := &Manager{base: strings.TrimSuffix(u.String(), "/"), transport: cfg.Transport, timeout: cfg.Timeout}
	if m.transport == nil {
		m.transport = NewTransport(nil)
	}
	if m.timeout == 0 {
		m.timeout = DefaultTimeout
	}
	return m, nil
}

// CreateManaged makes a session without a key of the client's, from the template of
// that kind, namespace and name, for the caller whose header ctx carries; see
// auth.WithAuthorization. Should the Workload Manager take the caller for somebody else
// than owner, that is an error. When ctx ends before, the Workload Manager undoes the
// session.
func (m *Manager) CreateManaged(ctx context.Context, owner auth.Principal, kind, namespace, name string) (session.Session, error) {
	path := "/v1/code-interpreter"
	if kind == api.KindAgentRuntime {
		path = "/v1/agent-runtime"
	}
	var out api.CreateResponse
	if err := m.post(ctx, path, api.CreateRequest{Namespace: namespace, Name: name}, &out); err != nil {
		return session.Session{}, fmt.Errorf("ask for session: %w", err)
	}
	switch {
	case out.SessionID == "":
		return session.Session{}, errors.New("ask for session: the Workload Manager's answer holds no session id")
	case out.OwnerID != owner.Name:
		return session.Session{}, errors.New("ask for session: the Workload Manager takes the caller for another than the Router does")
	}
	return session.Session{
		ID: out.SessionID, Kind: kind, Namespace: namespace, Name: name, State: out.Session.State, Owner: out.OwnerID,
		Auth: out.Session.Auth, SandboxID: out.SandboxID, EntryPoints: out.EntryPoints,
	}, nil
}

// Wake resumes a session in the name of its owner, whose header ctx carries. Without one
// nobody can tell that it may be: the error is a 409.
func (m *Manager) Wake(ctx context.Context, id string) error {
	if auth.AuthorizationFrom(ctx) == "" {
		e := api.Errorf(http.StatusConflict, api.CodeSessionNotReady, "the session is paused").
			WithHint("resume it first: that takes its owner's token, which is not with this request")
		e.RetryAfter = 1
		return e
	}
	if err := m.post(ctx, "/v1/sessions/"+url.PathEscape(id)+"/resume", nil, nil); err != nil {
		return fmt.Errorf("resume session: %w", err)
	}
	return nil
}

// Close drops connections that are not used.
func (m *Manager) Close() {
	if t, ok := m.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// post sends in as JSON, and decodes a good answer into out; both may be nil. Errors
// are answers for the Router's caller.
func (m *Manager) post(asked context.Context, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(asked, m.timeout)
	defer cancel()
	sent, resp, err := m.send(ctx, path, body)
	if err != nil && !sent && ctx.Err() == nil {
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
		_, resp, err = m.send(ctx, path, body)
	}
	if err == nil {
		defer resp.Body.Close()
		body, err = readAll(resp.Body)
	}
	switch {
	case err != nil && asked.Err() != nil:
		return asked.Err()
	case err != nil && ctx.Err() != nil:
		return api.Errorf(http.StatusGatewayTimeout, api.CodeSandboxTimeout, "sandbox creation timed out").WithCause(err)
	case err != nil:
		return away(err)
	case resp.StatusCode != http.StatusOK:
		return refused(resp, body)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// send makes one request. sent is false when it failed before there was a connection to
// send anything over.
func (m *Manager) send(ctx context.Context, path string, body []byte) (sent bool, _ *http.Response, _ error) {
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, m.base+path, bytes.NewReader(body))
	if err != nil {
		return false, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "agentcube-router")
	if header := auth.AuthorizationFrom(ctx); header != "" {
		req.Header.Set("Authorization", header)
	}
	if id := httpserve.RequestID(ctx); id != "" {
		req.Header.Set(api.HeaderRequestID, id)
	}
	trace.Inject(ctx, req.Header)
	resp, err := m.transport.RoundTrip(req)
	return connected.Load(), resp, err
}

func readAll(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("answer is longer than %d bytes", maxAnswer)
	}
	return body, err
}

// away is the answer while the Workload Manager cannot be reached.
func away(err error) *api.Error {
	e := api.Errorf(http.StatusServiceUnavailable, api.CodeUnavailable, "sessions cannot be made now, please try again").WithCause(err)
	e.RetryAfter = 1
	return e
}

// refused is a refusal of the Workload Manager. One that is not in its words is of
// something in between, which is nobody's business but the log's.
func refused(resp *http.Response, body []byte) error {
	e := &api.Error{}
	if json.Unmarshal(body, e) != nil || e.Text == "" || e.Code == "" || resp.StatusCode < http.StatusBadRequest {
		err := fmt.Errorf("the Workload Manager's address answered with status %d", resp.StatusCode)
		if resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout {
			return away(err)
		}
		return err
	}
	e.Status, e.Cause = resp.StatusCode, errors.New("refused by the Workload Manager")
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		e.RetryAfter = min(n, maxRetryAfter)
	}
	return e
}
