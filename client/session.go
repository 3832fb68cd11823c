package client

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/volcano-sh/agentcube/api"
)

// Defaults of CreateOptions.
const (
	DefaultTemplate  = "simple-codeinterpreter"
	DefaultNamespace = "default"
)

// CreateOptions say what session to create. The zero value is a key-bound
// session from the default template.
type CreateOptions struct {
	// Template names the CodeInterpreter; default DefaultTemplate.
	Template string
	// Namespace is the template's; default DefaultNamespace.
	Namespace string
	// Checkpoint names a checkpoint to start from. Template and Namespace are
	// then best left empty: they have no default, and only the checkpoint's own
	// are accepted. Managed has to be what it was for the session of which the
	// checkpoint was taken.
	Checkpoint string
	// TTL shortens the session's longest life, in whole seconds; 0 leaves the
	// template's.
	TTL time.Duration
	// Metadata is kept with the session and shown by get and list.
	Metadata map[string]string
	// Env are variables of all commands of the session, over those of its
	// template and, with Checkpoint, over those of the session it was taken of:
	// at most 128, with 64 KiB in all. ExecRequest.Env comes over them. They are
	// not shown by get and list.
	Env map[string]string
	// Files are in the workspace when the session begins: at most 64, with
	// 1 MiB in all. If one cannot be written, no session is made.
	Files []api.File
	// IdempotencyKey: creating again with the same key and the same options
	// gives the same session. With a key-bound session, give the same Key too.
	IdempotencyKey string
	// Managed makes a session that every holder of the owner's token can use.
	Managed bool
	// Key is the session key; nil makes one. It must be nil when Managed.
	Key *rsa.PrivateKey
}

// Session is one session that this process can use. Make it with
// Client.CreateSession or Client.Attach.
type Session struct {
	// ID is the session's id.
	ID string
	// Info describes the session as it was when it was created or attached to.
	Info api.Session

	c      *Client
	key    *rsa.PrivateKey
	secure *secure // nil: in plain text
}

// CreateSession creates a session and returns when commands can be run in it.
// The caller deletes it; what is forgotten ends at its idle time-out.
// ErrUnsupported when the server is too old to take Env and Files.
func (c *Client) CreateSession(ctx context.Context, opts CreateOptions) (*Session, error) {
	req, key, err := opts.request()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode create request: %w", err)
	}
	ctx, cancel := control(ctx)
	defer cancel()
	in := call{method: http.MethodPost, base: c.manager, path: "/v1/code-interpreter", json: raw}
	if opts.IdempotencyKey != "" {
		in.header = http.Header{api.HeaderIdempotencyKey: {opts.IdempotencyKey}}
	}
	var out api.CreateResponse
	if err := c.sendJSON(ctx, in, &out); err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	if out.SessionID == "" {
		return nil, errors.New("create session: the server's answer holds no session id")
	}
	if out.Variables != len(opts.Env) || out.Files != len(opts.Files) {
		return nil, c.tooOld(ctx, out.SessionID)
	}
	info := out.Session
	info.SessionID = out.SessionID
	// Servers older than the native API do not describe the session.
	if info.Name == "" {
		info.Kind, info.Namespace, info.Name = api.KindCodeInterpreter, req.Namespace, req.Name
	}
	s, err := c.session(info, key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create session: %w", err), c.DeleteSession(context.WithoutCancel(ctx), info.SessionID))
	}
	return s, nil
}

// session is the handle of a session.
func (c *Client) session(info api.Session, key *rsa.PrivateKey) (*Session, error) {
	secure, err := c.secured(info, key)
	if err != nil {
		return nil, err
	}
	return &Session{ID: info.SessionID, Info: info, c: c, key: key, secure: secure}, nil
}

// InPlainText is the same session, reached without encryption from end to end, as
// Config.PlainText has it: to measure what that costs, or where something on the way
// has to read.
func (s *Session) InPlainText() *Session {
	plain := *s
	plain.secure = nil
	return &plain
}

// tooOld deletes a session whose server took no notice of what it was to be given.
func (c *Client) tooOld(ctx context.Context, sessionID string) error {
	err := c.DeleteSession(context.WithoutCancel(ctx), sessionID)
	return errors.Join(fmt.Errorf("create session: the server is too old to take env and files: %w", ErrUnsupported), err)
}

func (o CreateOptions) request() (api.CreateRequest, *rsa.PrivateKey, error) {
	req := api.CreateRequest{
		Name: o.Template, Namespace: o.Namespace, Metadata: o.Metadata, Checkpoint: o.Checkpoint,
		Env: o.Env, Files: slices.Clone(o.Files),
	}
	for name, value := range o.Env {
		// What is not UTF-8 would arrive as something else.
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return req, nil, fmt.Errorf("create session: variable %q is not UTF-8", name)
		}
	}
	for i, f := range req.Files {
		if !utf8.ValidString(f.Path) {
			return req, nil, fmt.Errorf("create session: path %q is not UTF-8", f.Path)
		}
		if f.Content == nil {
			req.Files[i].Content = []byte{} // nil is null in JSON
		}
	}
	if req.Name == "" && o.Checkpoint == "" {
		req.Name = DefaultTemplate
	}
	if req.Namespace == "" && o.Checkpoint == "" {
		req.Namespace = DefaultNamespace
	}
	var err error
	if req.TTL, err = wholeSeconds(o.TTL); err != nil {
		return req, nil, fmt.Errorf("create session: %w", err)
	}
	if o.Managed {
		if o.Key != nil {
			return req, nil, errors.New("create session: a managed session has no key")
		}
		return req, nil, nil
	}
	key := o.Key
	if key == nil {
		if key, err = NewKey(); err != nil {
			return req, nil, err
		}
	}
	req.PublicKey, err = encodePublicKey(key)
	return req, key, err
}

func wholeSeconds(ttl time.Duration) (int64, error) {
	if ttl < 0 || ttl%time.Second != 0 {
		return 0, fmt.Errorf("ttl %s is not a whole number of seconds above zero", ttl)
	}
	return int64(ttl / time.Second), nil
}

// Attach returns a session that was created before. key is its private key,
// or nil for a managed session.
func (c *Client) Attach(ctx context.Context, sessionID string, key *rsa.PrivateKey) (*Session, error) {
	info, err := c.GetSession(ctx, sessionID)
	if err != nil {
		return nil, err
	}
	if info.Auth == api.AuthClientKey && key == nil {
		return nil, fmt.Errorf("attach to session %s: only the holder of its private key can use it", sessionID)
	}
	if info.Auth == api.AuthManaged && key != nil {
		return nil, fmt.Errorf("attach to session %s: it is managed, and has no key", sessionID)
	}
	s, err := c.session(info, key)
	if err != nil {
		return nil, fmt.Errorf("attach to session %s: %w", sessionID, err)
	}
	return s, nil
}

// GetSession describes a session of the caller, ended or not; with the scope
// admin, of anybody.
func (c *Client) GetSession(ctx context.Context, sessionID string) (api.Session, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	var out api.Session
	path, err := sessionPath(sessionID)
	if err != nil {
		return out, err
	}
	if err := c.sendJSON(ctx, call{method: http.MethodGet, base: c.manager, path: path}, &out); err != nil {
		return out, fmt.Errorf("get session %s: %w", sessionID, err)
	}
	return out, nil
}

// DeleteSession ends a session of the caller, or with the scope admin of anybody,
// and removes all that belongs to it. It returns when that is done. ErrNotFound
// when there is no such session.
func (c *Client) DeleteSession(ctx context.Context, sessionID string) error {
	ctx, cancel := control(ctx)
	defer cancel()
	path, err := sessionPath(sessionID)
	if err != nil {
		return err
	}
	if err := c.sendJSON(ctx, call{method: http.MethodDelete, base: c.manager, path: path}, nil); err != nil {
		return fmt.Errorf("delete session %s: %w", sessionID, err)
	}
	return nil
}

// ListOptions select sessions for ListSessions.
type ListOptions struct {
	// AllOwners lists the sessions of every owner; the caller's token needs the
	// scope admin.
	AllOwners bool
	// States to list; none means all, ended ones included.
	States []api.State
	// Limit is the page size; 0 means the server's.
	Limit int
	// PageToken is SessionList.NextPageToken of the page before.
	PageToken string
}

// ListSessions returns one page of the caller's sessions, or of everybody's,
// newest first.
func (c *Client) ListSessions(ctx context.Context, opts ListOptions) (api.SessionList, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	query := url.Values{}
	if opts.AllOwners {
		query.Set("all", "true")
	}
	for _, s := range opts.States {
		query.Add("state", string(s))
	}
	if opts.Limit != 0 {
		query.Set("limit", strconv.Itoa(opts.Limit))
	}
	if opts.PageToken != "" {
		query.Set("pageToken", opts.PageToken)
	}
	var out api.SessionList
	in := call{method: http.MethodGet, base: c.manager, path: "/v1/sessions", query: query}
	if err := c.sendJSON(ctx, in, &out); err != nil {
		return out, fmt.Errorf("list sessions: %w", err)
	}
	return out, nil
}

// Health returns nil when the control plane answers that it is healthy.
func (c *Client) Health(ctx context.Context) error {
	ctx, cancel := control(ctx)
	defer cancel()
	if err := c.sendJSON(ctx, call{method: http.MethodGet, base: c.manager, path: "/health"}, nil); err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	return nil
}

// Delete ends the session. It succeeds when the session is over already.
func (s *Session) Delete(ctx context.Context) error {
	defer s.c.forget(s.secure)
	err := s.c.DeleteSession(ctx, s.ID)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrSessionEnded) {
		return nil
	}
	return err
}

func sessionPath(id string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", fmt.Errorf("%q is not a session id", id)
	}
	return "/v1/sessions/" + url.PathEscape(id), nil
}

// invocation is a data-plane call to path, not encoded, below the session's own root.
func (s *Session) invocation(method, path string) call {
	kind := "code-interpreters"
	if s.Info.Kind == api.KindAgentRuntime {
		kind = "agent-runtimes"
	}
	return call{
		method: method, base: s.c.router, session: s.ID, key: s.key, secure: s.secure, inside: "/" + path,
		path: "/v1/namespaces/" + url.PathEscape(s.Info.Namespace) + "/" + kind + "/" +
			url.PathEscape(s.Info.Name) + "/invocations/" + escapePath(path),
	}
}
