package token

import (
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth/pubkey"
)

// Session is what initialisation fixes.
type Session struct {
	ID   string `json:"id"`
	Mode Mode   `json:"mode"`
	Key  string `json:"key"` // PEM
	// Env are the variables of commands: the template's, and over them Own.
	Env map[string]string `json:"env,omitempty"`
	// Own are the variables that this session was given, and those that the
	// session of which it is a copy had of its own.
	Own      map[string]string `json:"own,omitempty"`
	Metadata map[string]any    `json:"metadata,omitempty"`
	// Strict sessions take bound tokens alone.
	Strict bool `json:"strict,omitempty"`
}

// Given is what a session is given with its key.
type Given struct {
	Env      map[string]string // of its template
	Own      map[string]string // of its own
	Metadata map[string]any
	Strict   bool // tokens have to be bound
}

// Offer is a verified init token that has not been accepted yet.
type Offer struct {
	Claims     Claims
	forSandbox string
	key        *rsa.PublicKey
	value      Session
}

// SessionID returns the session the token is for; "" if it does not say.
func (o *Offer) SessionID() string { return o.value.ID }

// Offer verifies the Authorization header of an init request. Its body must be
// compared with the claims before the offer is accepted.
func (g *Gate) Offer(header string) (*Offer, error) {
	now := g.known()
	if now.cfg.Bootstrap == nil {
		return nil, ErrNoBootstrap
	}
	if now.session != nil {
		return nil, ErrAlreadyInitialized
	}
	claims, err := g.verify(header, now.cfg.Bootstrap)
	if err != nil {
		return nil, err
	}
	if now.cfg.SandboxID != "" && claims.text("sandboxId") != now.cfg.SandboxID {
		return nil, invalid("token is for another sandbox")
	}
	o := &Offer{Claims: claims, forSandbox: now.cfg.SandboxID, value: Session{ID: claims.text("sessionId"), Mode: KeyBound}}
	switch mode := claims.text("mode"); {
	case mode == string(Managed) && o.value.ID == "":
		return nil, invalid("sessionId is missing")
	case mode == string(Managed):
		o.value.Mode = Managed
	case mode != "" && mode != string(KeyBound):
		return nil, invalid("mode is not known")
	}
	encoded := claims.text("session_public_key")
	if encoded == "" {
		return nil, ErrMissingKey
	}
	text, err := base64.RawStdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: decode base64: %w", ErrBadKey, err)
	}
	if o.key, err = ParseKey(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	o.value.Key = string(text)
	return o, nil
}

// Accept locks PicoD to the key of an offer. Only the first offer wins.
func (g *Gate) Accept(o *Offer, given Given) error {
	s := o.value
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.session != nil {
		return ErrAlreadyInitialized
	}
	if o.forSandbox != g.cfg.SandboxID {
		return invalid("token is for another sandbox")
	}
	s.Metadata, s.Strict = given.Metadata, given.Strict
	s.Own = over(g.inherited, given.Own)
	s.Env = over(given.Env, s.Own)
	certificate, err := certificateFor(&s)
	if err != nil {
		return err
	}
	if err := g.save(&s); err != nil {
		return err
	}
	g.session, g.key, g.certificate, g.inherited = &s, o.key, certificate, nil
	return nil
}

// certificateFor makes the certificate of a session, if its client can have one.
func certificateFor(s *Session) (*tls.Certificate, error) {
	if s.Mode != KeyBound || s.ID == "" {
		return nil, nil
	}
	return newCertificate(s.ID)
}

// over lays variables over others.
func over(below, above map[string]string) map[string]string {
	all := make(map[string]string, len(below)+len(above))
	maps.Copy(all, below)
	maps.Copy(all, above)
	return all
}

// ParseKey reads an RSA public key in PEM, under the rules by which the control
// plane takes it.
func ParseKey(text []byte) (*rsa.PublicKey, error) { return pubkey.ParsePEM(string(text)) }

const stateFile = "session.json"

// Load reads the session of an earlier run from the state directory, if any.
func (g *Gate) Load() error {
	if g.cfg.StateDir == "" {
		return nil
	}
	if err := os.MkdirAll(g.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := os.Chmod(g.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("close state directory: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(g.cfg.StateDir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	var s Session
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("parse session: %w", err)
	}
	key, err := ParseKey([]byte(s.Key))
	if err != nil {
		return fmt.Errorf("read session key: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// What the earlier run has seen of tokens was in its memory.
	g.session, g.key, g.since = &s, key, time.Now()
	return nil
}

// save keeps a session for the next run.
func (g *Gate) save(s *Session) (err error) {
	if g.cfg.StateDir == "" {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	f, err := os.CreateTemp(g.cfg.StateDir, stateFile+".*")
	if err != nil {
		return fmt.Errorf("save session: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("save session: %w", err)
	}
	if err = os.Rename(f.Name(), filepath.Join(g.cfg.StateDir, stateFile)); err != nil {
		return fmt.Errorf("save session: %w", err)
	}
	return nil
}
