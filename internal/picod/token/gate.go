package token

import (
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Leeway is how far the clocks of a client and a sandbox may differ.
const Leeway = 60 * time.Second

// Why a request is refused. Errors for tokens that do not verify wrap
// ErrInvalidToken and have a text that may be shown.
var (
	ErrNotInitialized     = errors.New("server not initialized")
	ErrAlreadyInitialized = errors.New("server already initialized")
	ErrNoBootstrap        = errors.New("server has no bootstrap key")
	ErrMissingHeader      = errors.New("missing authorization header")
	ErrMalformedHeader    = errors.New("invalid authorization header format")
	ErrInvalidToken       = errors.New("invalid token")
	ErrMissingKey         = errors.New("missing session_public_key")
	ErrBadKey             = errors.New("bad session public key")
	ErrTooManyTokens      = errors.New("too many live tokens")
)

// Mode says whose key a session key is.
type Mode string

const (
	// KeyBound sessions belong to the client that made the key.
	KeyBound Mode = "key-bound"
	// Managed sessions are signed for by the Router, for this session alone.
	Managed Mode = "managed"
)

// Config is what a PicoD knows from its start.
type Config struct {
	Bootstrap *rsa.PublicKey // nil: it cannot be initialised
	Router    *rsa.PublicKey // nil: it must be initialised
	SandboxID string         // "": init tokens are for any sandbox
	SessionID string         // "": router tokens are for any session
	StateDir  string         // "": the session key is kept in memory only
}

// Gate verifies tokens. It is safe for concurrent use.
type Gate struct {
	parser *jwt.Parser

	mu      sync.RWMutex
	cfg     Config // Assume changes it
	used    *replays
	since   time.Time // tokens that are used once are not older; zero: whatever they are
	session *Session
	key     *rsa.PublicKey
	// certificate is PicoD's own in this session; nil when the Router signs for it.
	certificate *tls.Certificate
	// inherited are the variables that the next session finds.
	inherited map[string]string
}

// Claims is what a verified token says that matters later.
type Claims struct {
	BodySHA256 string // lowercase hex; "" if HasBody is false
	HasBody    bool   // the token is for exactly one body
	Bound      bool   // the token is for exactly one request
	all        jwt.MapClaims
	key        *rsa.PublicKey // that it was signed with
}

// New returns a Gate. Load it when it has a StateDir.
func New(cfg Config) *Gate {
	return &Gate{cfg: cfg, used: newReplays(maxTokens), parser: jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256", "RS384", "RS512"}),
		jwt.WithLeeway(Leeway), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
	)}
}

// CanInitialize reports whether there is a bootstrap key at all.
func (g *Gate) CanInitialize() bool { return g.known().cfg.Bootstrap != nil }

// Identity is what Assume changes of a Config.
type Identity struct {
	Bootstrap *rsa.PublicKey // nil: it cannot be initialised
	SandboxID string         // "": init tokens are for any sandbox
}

// Assume makes the gate that of another sandbox, which has no session yet:
// the key, and the tokens seen, of the one before are forgotten. The variables
// of its session are not: with its files and memory the copy has them too.
func (g *Gate) Assume(id Identity) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cfg.StateDir != "" {
		if err := os.Remove(filepath.Join(g.cfg.StateDir, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget session: %w", err)
		}
	}
	g.cfg.SandboxID, g.cfg.Bootstrap = id.SandboxID, id.Bootstrap
	if g.session != nil {
		g.inherited = g.session.Own
	}
	g.session, g.key, g.used, g.since, g.certificate = nil, nil, newReplays(maxTokens), time.Time{}, nil
	return nil
}

// known is what the gate goes by at one moment.
type known struct {
	cfg     Config
	used    *replays
	since   time.Time
	session *Session
	key     *rsa.PublicKey
}

func (g *Gate) known() known {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return known{g.cfg, g.used, g.since, g.session, g.key}
}

// SandboxID is the sandbox that init tokens have to be for; "" means any.
func (g *Gate) SandboxID() string { return g.known().cfg.SandboxID }

// Session returns the session that PicoD is locked to, or nil.
func (g *Gate) Session() *Session { return g.known().session }

// Authorize verifies the Authorization header of a request to the API. The
// caller must still compare the body with the returned claims.
func (g *Gate) Authorize(header string, req Request) (Claims, error) {
	now := g.known()
	key := now.signer()
	if key == nil {
		return Claims{}, ErrNotInitialized
	}
	claims, err := g.verify(header, key)
	if err != nil {
		return Claims{}, err
	}
	if claims.isPart() {
		return Claims{}, invalid("this is the signature of a form, and no token")
	}
	claims.Bound = claims.isBound()
	if err := now.bind(claims, req); err != nil {
		return Claims{}, err
	}
	return claims, nil
}

// bind checks that a token is for this session, for this request if it says so,
// and was not used before.
func (k known) bind(c Claims, req Request) error {
	id, routed := k.cfg.SessionID, true
	if k.session != nil {
		id, routed = k.session.ID, k.session.Mode == Managed
	}
	if routed && id != "" && c.text("session_id") != id {
		return invalid("token is for another session")
	}
	if sid, ok := c.all["sid"]; ok && id != "" && sid != id {
		return invalid("token is for another session")
	}
	if c.Bound {
		if err := c.checkBound(req, id); err != nil {
			return err
		}
	} else if k.session != nil && k.session.Strict {
		return invalid("the session is strict: sign jti, htm, htu, sid and body_sha256")
	}
	jti, ok := c.all["jti"]
	if !ok {
		return nil
	}
	if err := k.refuseOld(c); err != nil {
		return err
	}
	name, isText := jti.(string)
	if !isText || name == "" {
		return invalid("jti is not a text")
	}
	until, err := c.all.GetExpirationTime()
	if err != nil || until == nil {
		return invalid("exp is missing")
	}
	return k.used.use(name, time.Now(), until.Add(Leeway))
}

// verify checks header, signature and times.
func (g *Gate) verify(header string, key *rsa.PublicKey) (Claims, error) {
	if header == "" {
		return Claims{}, ErrMissingHeader
	}
	parts := strings.Split(header, " ")
	if len(parts) != 2 || parts[0] != "Bearer" {
		return Claims{}, ErrMalformedHeader
	}
	all := jwt.MapClaims{}
	if _, err := g.parser.ParseWithClaims(parts[1], all, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
		return Claims{}, invalid(err.Error())
	}
	c := Claims{all: all, key: key}
	if hash, ok := all["body_sha256"]; ok {
		if c.BodySHA256, ok = hash.(string); !ok || len(c.BodySHA256) != 64 {
			return Claims{}, invalid("body_sha256 is not a SHA-256 in hex")
		}
		c.HasBody = true
	}
	return c, nil
}

// CheckBody compares the hash of a body with what its token was signed for.
func (c Claims) CheckBody(sum string) error {
	if c.Bound && !c.HasBody {
		return invalid("body_sha256 is missing")
	}
	if c.HasBody && c.BodySHA256 != sum {
		return invalid("body_sha256 does not match the body")
	}
	return nil
}

func (c Claims) text(name string) string {
	s, _ := c.all[name].(string)
	return s
}

func invalid(why string) error {
	return fmt.Errorf("%w: JWT verification failed: %s", ErrInvalidToken, why)
}

// Detail returns what may be told about an error that wraps ErrInvalidToken.
func Detail(err error) string {
	return strings.TrimPrefix(err.Error(), ErrInvalidToken.Error()+": ")
}
