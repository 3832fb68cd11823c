package client

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// DefaultBaseURL is where `agentcube up` listens when nothing is configured.
const DefaultBaseURL = "http://localhost:8080"

const (
	// maxAnswer bounds a JSON answer. PicoD bounds command output well below it.
	maxAnswer = 256 << 20
	// maxErrorAnswer bounds what is read of a failed answer.
	maxErrorAnswer = 64 << 10
	// controlTimeout bounds a control-plane call whose context has no deadline.
	controlTimeout = 2 * time.Minute
)

// Config says where the servers are and how the caller shows who it is. The
// zero Config is a local AgentCube with no token.
type Config struct {
	// BaseURL is the address of both planes; default DefaultBaseURL.
	BaseURL string
	// WorkloadManagerURL and RouterURL override BaseURL for one plane.
	WorkloadManagerURL string
	RouterURL          string
	// Token is the bearer token for the control plane and for managed sessions.
	Token string
	// TokenSource, when set, is asked before each request where there is no other token:
	// for one that is replaced from time to time. It may give "", for none.
	TokenSource func() (string, error)
	// LocalToken is used when Token is empty, and only towards loopback
	// addresses: it opens this machine's AgentCube and nothing else, so it
	// must never reach another one.
	LocalToken string
	// HTTPClient makes the requests; default is one of its own with pooled
	// connections, without a proxy and without an overall time-out.
	HTTPClient *http.Client
	// StallTimeout is how long an upload or download may stand still before it
	// fails; default DefaultStallTimeout.
	StallTimeout time.Duration
	// PlainText has sessions reached without encryption from end to end also where
	// the server offers it, as with an HTTPClient of one's own. It is for what ends TLS
	// before the Router, such as an ingress. Requests are signed all the same.
	PlainText bool
	// Traceparent, when set, is asked before each request for the step of a trace that
	// the request is part of, in the form of the header traceparent (W3C Trace Context),
	// or "". Commands in the sandbox find it in their variable TRACEPARENT.
	Traceparent func(ctx context.Context) string
	// UserAgent is sent with every request; default "agentcube-go".
	UserAgent string
}

// Client makes requests to one AgentCube. Make it with New.
type Client struct {
	manager *url.URL
	router  *url.URL
	token   string
	source  func() (string, error) // nil: there is none
	local   string
	http    *http.Client
	stall   time.Duration
	agent   string
	plain   bool
	parent  func(context.Context) string // nil: no traces

	mu      sync.Mutex
	secures []*secure // those in use
}

// New checks cfg and returns a Client. It makes no connection.
func New(cfg Config) (*Client, error) {
	base := cfg.BaseURL
	if base == "" {
		base = DefaultBaseURL
	}
	manager, err := parseBase("workload manager", cfg.WorkloadManagerURL, base)
	if err != nil {
		return nil, err
	}
	router, err := parseBase("router", cfg.RouterURL, base)
	if err != nil {
		return nil, err
	}
	c := &Client{
		manager: manager, router: router,
		token: cfg.Token, source: cfg.TokenSource, local: cfg.LocalToken,
		agent: cfg.UserAgent, stall: cfg.StallTimeout, plain: cfg.PlainText || cfg.HTTPClient != nil,
		parent: cfg.Traceparent,
	}
	if c.stall == 0 {
		c.stall = DefaultStallTimeout
	}
	if c.stall < 0 {
		return nil, fmt.Errorf("stall time-out %s is negative", c.stall)
	}
	if c.agent == "" {
		c.agent = "agentcube-go"
	}
	hc := http.Client{}
	if cfg.HTTPClient != nil {
		hc = *cfg.HTTPClient
	}
	if hc.Transport == nil {
		hc.Transport = newTransport()
	}
	if hc.CheckRedirect == nil {
		hc.CheckRedirect = sameHostOnly
	}
	c.http = &hc
	return c, nil
}

// Close drops idle connections. Requests in flight are not disturbed.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.secures {
		s.http.CloseIdleConnections()
	}
}

// ManagerURL is the address of the control plane, for messages.
func (c *Client) ManagerURL() string { return c.manager.String() }

// unacknowledged is how long a server may say nothing of what was sent to it, or take
// nothing more, until it counts as gone: longer than a session needs to wake. One that
// is only waited for is known to be gone sooner, by the probes of newDialer.
const unacknowledged = time.Minute

func newDialer() *net.Dialer {
	return &net.Dialer{
		Timeout: 5 * time.Second, Control: giveUp,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
}

func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:           newDialer().DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       60 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// sameHostOnly refuses redirects that would carry a request, and what is in
// it, to another server.
func sameHostOnly(req *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("stopped after 5 redirects")
	}
	if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		return fmt.Errorf("refused redirect to another server, %s", req.URL.Host)
	}
	return nil
}

func parseBase(plane, own, base string) (*url.URL, error) {
	text := own
	if text == "" {
		text = base
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse %s URL: %w", plane, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("parse %s URL: %q is not an http:// or https:// address", plane, text)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("parse %s URL: %q must not hold a query, a fragment or a user", plane, text)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// bearer returns the token that may be sent to u, or "".
func (c *Client) bearer(u *url.URL) (string, error) {
	switch {
	case c.token != "":
		return c.token, nil
	case c.local != "" && isLoopback(u.Hostname()):
		return c.local, nil
	case c.source == nil:
		return "", nil
	}
	token, err := c.source()
	if err != nil {
		return "", fmt.Errorf("get token: %w", err)
	}
	return token, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// call is one request of the client.
type call struct {
	method string
	base   *url.URL
	// path is appended to the base and already percent-encoded.
	path  string
	query url.Values
	// json, when not nil, is the body; else body, with length -1 for unknown.
	json   []byte
	raw    []byte // the body, which the signature binds; of the type that header says
	body   io.Reader
	length int64
	ctype  string
	header http.Header
	// session and key are set for the data plane; a nil key means managed.
	session string
	key     *rsa.PrivateKey
	secure  *secure // nil: in plain text
	begun   time.Time
	// inside is the path as the sandbox sees it, decoded: the key signs it.
	inside string
	// jti, when set, is the id of the token, which other signatures refer to.
	jti string
}

// send makes the request. The caller closes the body of the answer, whose
// status is below 400; every other answer has become an *APIError.
func (c *Client) send(ctx context.Context, in call) (*http.Response, error) {
	req, err := c.request(ctx, in)
	if err != nil {
		return nil, err
	}
	hc := c.http
	if in.secure != nil {
		hc = in.secure.http
	}
	in.begun = time.Now()
	resp, err := hc.Do(req)
	if err != nil {
		again, why := c.askWhy(ctx, in, transportError(ctx, in.base, err))
		if again && in.body == nil {
			return c.send(ctx, in)
		}
		return nil, why
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readAPIError(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, in call) (*http.Request, error) {
	target := in.base.String() + in.path
	if in.secure != nil {
		target = "https://" + in.secure.name + escapePath(in.inside)
	}
	if len(in.query) > 0 {
		target += "?" + in.query.Encode()
	}
	body := in.body
	if in.json != nil {
		body = strings.NewReader(string(in.json))
	}
	if in.raw != nil {
		body = bytes.NewReader(in.raw)
	}
	req, err := http.NewRequestWithContext(ctx, in.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if in.body != nil {
		req.ContentLength = in.length
	}
	for name, values := range in.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	if c.parent != nil {
		if step := c.parent(ctx); step != "" {
			req.Header.Set("Traceparent", step)
		}
	}
	if in.json != nil {
		req.Header.Set("Content-Type", "application/json")
	} else if in.ctype != "" {
		req.Header.Set("Content-Type", in.ctype)
	}
	if in.session != "" {
		req.Header.Set(api.HeaderSessionID, in.session)
	}
	switch {
	case in.key != nil:
		token, err := signRequest(in, time.Now())
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	default:
		token, err := c.bearer(in.base)
		if err != nil {
			return nil, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	return req, nil
}

// sendJSON makes the request and decodes the JSON answer into out, which may
// be nil.
func (c *Client) sendJSON(ctx context.Context, in call, out any) error {
	in.begun = time.Now()
	resp, err := c.send(ctx, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	limited := &io.LimitedReader{R: resp.Body, N: maxAnswer}
	if out == nil {
		_, err = io.Copy(io.Discard, limited)
	} else {
		err = json.NewDecoder(limited).Decode(out)
	}
	if err != nil {
		if limited.N <= 0 {
			return fmt.Errorf("read answer: longer than %d bytes", maxAnswer)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("read answer: %w", ctx.Err())
		}
		_, why := c.askWhy(ctx, in, &ConnectError{URL: in.base.String(), Err: fmt.Errorf("read answer: %w", err)})
		return why
	}
	return nil
}

// control bounds a control-plane call when the caller has not done so.
func control(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, controlTimeout)
}
