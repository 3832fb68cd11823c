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
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// MaxForks is how many sessions one Fork can make.
const MaxForks = 64

// Pause freezes the session, memory and files, to disk; it then holds neither
// CPU nor memory. The next request to it, or Resume, lets it go on where it
// was. Requests under way fail with ErrSessionPaused. Pausing a paused session
// succeeds.
func (s *Session) Pause(ctx context.Context) error {
	_, err := s.c.PauseSession(ctx, s.ID)
	return err
}

// Resume lets a paused session go on. Nobody needs it, as every request does
// the same; it is for those who do not want to wait later. Resuming a running
// session succeeds.
func (s *Session) Resume(ctx context.Context) error {
	_, err := s.c.ResumeSession(ctx, s.ID)
	return err
}

// PauseSession is Session.Pause for any session of the caller: pausing takes no
// session key.
func (c *Client) PauseSession(ctx context.Context, sessionID string) (api.Session, error) {
	return c.change(ctx, sessionID, "pause")
}

// ResumeSession is Session.Resume for any session of the caller.
func (c *Client) ResumeSession(ctx context.Context, sessionID string) (api.Session, error) {
	return c.change(ctx, sessionID, "resume")
}

func (c *Client) change(ctx context.Context, sessionID, verb string) (api.Session, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	var out api.Session
	path, err := sessionPath(sessionID)
	if err != nil {
		return out, err
	}
	if err := c.sendJSON(ctx, call{method: http.MethodPost, base: c.manager, path: path + "/" + verb}, &out); err != nil {
		return out, fmt.Errorf("%s session %s: %w", verb, sessionID, err)
	}
	return out, nil
}

// ForkOptions describe the new sessions of a Fork. The zero value gives them
// the longest life of their template.
type ForkOptions struct {
	// TTL and Metadata are as in CreateOptions.
	TTL      time.Duration
	Metadata map[string]string
	// Keys are those of the new sessions, one each; nil makes them. A session
	// without a key has forks without keys.
	Keys []*rsa.PrivateKey
}

// Fork makes count sessions, 1 to MaxForks, that begin with the memory and the
// files that this one has now, and from then on have nothing in common with it
// or one another. Either all are made or none. Each fork of a key-bound
// session has a key of its own. The caller deletes them.
func (s *Session) Fork(ctx context.Context, count int, opts ForkOptions) ([]*Session, error) {
	if count < 1 || count > MaxForks {
		return nil, fmt.Errorf("fork session: count %d is not from 1 to %d", count, MaxForks)
	}
	ttl, err := wholeSeconds(opts.TTL)
	if err != nil {
		return nil, fmt.Errorf("fork session: %w", err)
	}
	ctx, cancel := control(ctx)
	defer cancel()
	req := api.ForkRequest{Count: count, TTL: ttl, Metadata: opts.Metadata}
	keys, err := s.forkKeys(count, opts.Keys)
	if err != nil {
		return nil, err
	}
	if s.key != nil {
		if req.PublicKeys, err = fillKeys(ctx, keys); err != nil {
			return nil, fmt.Errorf("fork session: %w", err)
		}
	}
	var out api.ForkResponse
	if err := s.sendSigned(ctx, "fork", req, &out); err != nil {
		return nil, fmt.Errorf("fork session %s: %w", s.ID, err)
	}
	if len(out.Sessions) != count {
		return nil, fmt.Errorf("fork session %s: asked for %d sessions, the answer holds %d", s.ID, count, len(out.Sessions))
	}
	forks := make([]*Session, count)
	for i, made := range out.Sessions {
		if made.SessionID == "" {
			return nil, fmt.Errorf("fork session %s: the server's answer holds no session id", s.ID)
		}
		info := made.Session
		info.SessionID = made.SessionID
		if forks[i], err = s.c.session(info, keys[i]); err != nil {
			return nil, fmt.Errorf("fork session %s: %w", s.ID, err)
		}
	}
	return forks, nil
}

// forkKeys checks the keys that the caller has made, and leaves room for those
// that are to be made.
func (s *Session) forkKeys(count int, own []*rsa.PrivateKey) ([]*rsa.PrivateKey, error) {
	if own == nil {
		return make([]*rsa.PrivateKey, count), nil
	}
	if s.key == nil {
		return nil, errors.New("fork session: the session has no key, and neither have its forks")
	}
	if len(own) != count || slices.Contains(own, nil) {
		return nil, fmt.Errorf("fork session: there are %d keys for %d sessions, or one is nil", len(own), count)
	}
	return slices.Clone(own), nil
}

// fillKeys makes the keys that are nil and returns the public halves of all.
// Making one takes a core for a tenth of a second.
func fillKeys(ctx context.Context, keys []*rsa.PrivateKey) ([]string, error) {
	public := make([]string, len(keys))
	errs := make([]error, len(keys))
	makers := make(chan struct{}, keyMakers())
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			makers <- struct{}{}
			defer func() { <-makers }()
			if errs[i] = ctx.Err(); errs[i] == nil && keys[i] == nil {
				keys[i], errs[i] = NewKey()
			}
			if errs[i] == nil {
				public[i], errs[i] = encodePublicKey(keys[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("make session keys: %w", err)
	}
	return public, nil
}

// Checkpoint keeps the session's memory and files under a name: 1 to 128
// letters, digits, '.', '_' and '-', the first a letter or a digit. The session
// goes on as it was. CreateOptions.Checkpoint begins a session from it, as often
// as wanted, also when this one has ended. ErrExists when the name is taken.
func (s *Session) Checkpoint(ctx context.Context, name string) (api.Checkpoint, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	var out api.Checkpoint
	if name == "" {
		return out, errors.New("checkpoint session: the name is empty")
	}
	if err := s.sendSigned(ctx, "checkpoints", api.CheckpointRequest{Name: name}, &out); err != nil {
		return out, fmt.Errorf("checkpoint session %s: %w", s.ID, err)
	}
	return out, nil
}

// sendSigned posts a request to which the holder of the session's key, if it
// has one, has to agree.
func (s *Session) sendSigned(ctx context.Context, verb string, body, out any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	path, err := sessionPath(s.ID)
	if err != nil {
		return err
	}
	in := call{method: http.MethodPost, base: s.c.manager, path: path + "/" + verb, json: raw}
	if s.key != nil {
		signature, err := signAgreement(s.key, s.ID, in.method, in.path, raw, time.Now())
		if err != nil {
			return err
		}
		in.header = http.Header{api.HeaderSessionSignature: {signature}}
	}
	return s.c.sendJSON(ctx, in, out)
}

// Checkpoints lists the checkpoints of the caller, newest first.
func (c *Client) Checkpoints(ctx context.Context) ([]api.Checkpoint, error) {
	return c.checkpoints(ctx, nil)
}

// AllCheckpoints lists those of every owner; the caller's token needs the scope
// admin.
func (c *Client) AllCheckpoints(ctx context.Context) ([]api.Checkpoint, error) {
	return c.checkpoints(ctx, url.Values{"all": {"true"}})
}

func (c *Client) checkpoints(ctx context.Context, query url.Values) ([]api.Checkpoint, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	var out api.CheckpointList
	if err := c.sendJSON(ctx, call{method: http.MethodGet, base: c.manager, path: "/v1/checkpoints", query: query}, &out); err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	return out.Checkpoints, nil
}

// DeleteCheckpoint removes a checkpoint; sessions made from it are not touched.
// ErrNotFound when there is none of that name.
func (c *Client) DeleteCheckpoint(ctx context.Context, name string) (api.Checkpoint, error) {
	return c.deleteCheckpoint(ctx, name, nil)
}

// DeleteCheckpointOf is DeleteCheckpoint for one of another owner's; the caller's
// token needs the scope admin.
func (c *Client) DeleteCheckpointOf(ctx context.Context, owner, name string) (api.Checkpoint, error) {
	if owner == "" {
		return api.Checkpoint{}, errors.New("delete checkpoint: the owner is empty")
	}
	return c.deleteCheckpoint(ctx, name, url.Values{"owner": {owner}})
}

func (c *Client) deleteCheckpoint(ctx context.Context, name string, query url.Values) (api.Checkpoint, error) {
	ctx, cancel := control(ctx)
	defer cancel()
	var out api.Checkpoint
	if name == "" || name == "." || name == ".." {
		return out, fmt.Errorf("%q is not the name of a checkpoint", name)
	}
	in := call{method: http.MethodDelete, base: c.manager, path: "/v1/checkpoints/" + url.PathEscape(name), query: query}
	if err := c.sendJSON(ctx, in, &out); err != nil {
		return out, fmt.Errorf("delete checkpoint %s: %w", name, err)
	}
	return out, nil
}
