package auth

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/session"
)

// Errors of Agreements.Verify; their text can be shown to the caller.
var (
	// ErrNotAgreed says that a request does not show the agreement of whoever
	// holds the session's key.
	ErrNotAgreed = errors.New("not signed with the session's key")
	// ErrTooManyAgreements says that no more signatures can be remembered now.
	ErrTooManyAgreements = errors.New("too many signed requests")
)

const (
	// maxAgreements bounds the remembered signatures, and maxOwned those for the
	// sessions of one owner, so that nobody can use up what others need. Each is
	// remembered for some six minutes.
	maxAgreements = 1 << 16
	maxOwned      = 1 << 12
	maxJTI        = 128
)

// Agreement is a request to the control plane that the session's key has to
// sign, as it is about a copy of what only that key opens.
type Agreement struct {
	// Owner is whose session it is. Each has so many signatures at a time.
	Owner        string
	SessionID    string
	Method, Path string
	Body         []byte
}

// Agreements checks signatures and remembers them, so that each counts once. It
// is safe for concurrent use. What it remembers itself ends with the process: a
// signature made less than five minutes before a restart can then count again, for
// the very same request.
type Agreements struct {
	once            session.Once // nil: it remembers them itself
	most, mostOwned int

	mu    sync.Mutex
	used  map[string]map[string]time.Time // until when, by owner, and by session and jti
	count int                             // of all owners
	swept time.Time
}

// NewAgreements returns one that remembers in a store, or, where that is nil, has seen
// nothing.
func NewAgreements(once session.Once) *Agreements {
	return newAgreements(once, maxAgreements, maxOwned)
}

func newAgreements(once session.Once, most, mostOwned int) *Agreements {
	return &Agreements{once: once, most: most, mostOwned: mostOwned, used: map[string]map[string]time.Time{}}
}

type agreementClaims struct {
	jwt.RegisteredClaims
	Session string `json:"sid"`
	Method  string `json:"htm"`
	Path    string `json:"htu"`
	Body    string `json:"body_sha256"`
}

// Verify checks the token of api.HeaderSessionSignature against the public key
// of the session and the request it was sent with: RS256 or PS256, all claims
// there and right, valid for five minutes at most, and not seen before. The
// error matches ErrNotAgreed or ErrTooManyAgreements, or is that of the store.
func (a *Agreements) Verify(ctx context.Context, key *rsa.PublicKey, token string, want Agreement, now time.Time) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotAgreed, fmt.Sprintf(format, args...))
	}
	if token == "" {
		return refuse("there is no signature")
	}
	if len(token) > maxAuthorization {
		return refuse("longer than %d bytes", maxAuthorization)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256", "PS256"}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(Leeway),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	var claims agreementClaims
	if _, err := parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
		return fmt.Errorf("%w: %w", ErrNotAgreed, err)
	}
	digest := sha256.Sum256(want.Body)
	switch {
	case claims.IssuedAt == nil:
		return refuse("iat is missing")
	case claims.ExpiresAt.Sub(claims.IssuedAt.Time) > TokenLife:
		return refuse("exp is more than %v after iat", TokenLife)
	case claims.Session != want.SessionID:
		return refuse("sid is not that of the session")
	case claims.Method != want.Method || claims.Path != want.Path:
		return refuse("htm and htu must be %s and %s", want.Method, want.Path)
	case subtle.ConstantTimeCompare([]byte(claims.Body), []byte(hex.EncodeToString(digest[:]))) != 1:
		return refuse("body_sha256 is not that of the body, in lower-case hexadecimal")
	case claims.ID == "" || len(claims.ID) > maxJTI:
		return refuse("jti must be 1 to %d bytes", maxJTI)
	}
	id, until := want.SessionID+" "+claims.ID, claims.ExpiresAt.Add(Leeway)
	if a.once == nil {
		return a.use(want.Owner, id, until, now)
	}
	err := a.once.UseOnce(ctx, session.Use{Owner: want.Owner, ID: id, Now: now, Until: until, Most: a.mostOwned})
	switch {
	case errors.Is(err, session.ErrUsed):
		return refuse("the signature was used before")
	case errors.Is(err, session.ErrTooManyUses):
		return fmt.Errorf("%w: %w", ErrTooManyAgreements, err)
	}
	return err
}

// use remembers a signature until it has expired.
func (a *Agreements) use(owner, id string, until, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, seen := a.used[owner][id]; seen {
		return fmt.Errorf("%w: the signature was used before", ErrNotAgreed)
	}
	full := func() bool { return a.count >= a.most || len(a.used[owner]) >= a.mostOwned }
	if full() || now.Sub(a.swept) > time.Minute {
		a.sweep(now)
	}
	if full() {
		return ErrTooManyAgreements
	}
	if a.used[owner] == nil {
		a.used[owner] = map[string]time.Time{}
	}
	a.used[owner][id] = until
	a.count++
	return nil
}

// sweep forgets signatures that have expired; at most once a second, so that a
// full memory does not make every request walk it.
func (a *Agreements) sweep(now time.Time) {
	if since := now.Sub(a.swept); since >= 0 && since < time.Second {
		return
	}
	a.swept = now
	for owner, used := range a.used {
		for id, end := range used {
			if now.After(end) {
				delete(used, id)
				a.count--
			}
		}
		if len(used) == 0 {
			delete(a.used, owner)
		}
	}
}
