package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// TokenLife is how long a token that AgentCube signs is valid.
	TokenLife = 5 * time.Minute
	// Leeway is how far the clocks of signer and verifier may be apart.
	Leeway = 60 * time.Second
	// RouterIssuer is the issuer of tokens that the Router signs.
	RouterIssuer = "agentcube-router"
	// InitPurpose is the purpose claim of the token that locks a PicoD.
	InitPurpose = "sandbox_init"

	// maxAuthorization bounds the Authorization header that is looked at; a
	// token signed with an RSA-8192 key needs 2 KiB.
	maxAuthorization = 16 << 10
)

// InitMode says to whose key a PicoD is locked.
type InitMode string

// The modes.
const (
	// InitKeyBound: to the key of the client that made the session.
	InitKeyBound InitMode = "key-bound"
	// InitManaged: to the key of the Router.
	InitManaged InitMode = "managed"
)

// Init is what the init token tells PicoD.
type Init struct {
	SessionID string
	SandboxID string
	Mode      InitMode
	// PublicKey is the PEM text of the key to be locked to: the session's, or
	// the Router's for a managed session.
	PublicKey string
	// Body is the exact body of the init request, which the token is bound to.
	Body []byte
}

// SignInit makes the token with which the Workload Manager locks a PicoD to a
// key, signed with the bootstrap key.
func SignInit(bootstrap *rsa.PrivateKey, init Init, now time.Time) (string, error) {
	digest := sha256.Sum256(init.Body)
	return sign(bootstrap, now, jwt.MapClaims{
		"purpose":            InitPurpose,
		"sessionId":          init.SessionID,
		"sandboxId":          init.SandboxID,
		"mode":               string(init.Mode),
		"session_public_key": base64.RawStdEncoding.EncodeToString([]byte(init.PublicKey)),
		"body_sha256":        hex.EncodeToString(digest[:]),
	})
}

// SealPurpose is the purpose claim of the token that asks for a statement about a
// session's own record.
const SealPurpose = "sandbox_seal"

// SignSeal makes the token with which the Workload Manager asks a PicoD for such a
// statement, signed with the bootstrap key.
func SignSeal(bootstrap *rsa.PrivateKey, sessionID, sandboxID string, now time.Time) (string, error) {
	return sign(bootstrap, now, jwt.MapClaims{"purpose": SealPurpose, "sessionId": sessionID, "sandboxId": sandboxID})
}

// SignRouter makes the token that the Router puts in the place of a caller's
// Authorization on a request to a managed session.
func SignRouter(router *rsa.PrivateKey, sessionID string, now time.Time) (string, error) {
	return sign(router, now, jwt.MapClaims{
		"iss":        RouterIssuer,
		"session_id": sessionID,
	})
}

// sign adds the claims that every token of ours has: when it was made, when it
// ends, and an id by which PicoD sees that it is used once.
func sign(key *rsa.PrivateKey, now time.Time, claims jwt.MapClaims) (string, error) {
	claims["iat"] = now.Unix()
	claims["exp"] = now.Add(TokenLife).Unix()
	claims["jti"] = rand.Text()
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// RequestError is a data-plane request that VerifyRequest refuses. PicoD's
// answer to it has status 401 and the body {"error": Text, "code": 401,
// "detail": Detail, "reason": Reason, "requestId": id}.
type RequestError struct {
	Text   string
	Detail string
	Reason string // stable
}

// Reasons of a RequestError, the same as PicoD's.
const (
	ReasonMissingToken   = "MISSING_TOKEN"
	ReasonMalformedToken = "MALFORMED_TOKEN"
	ReasonInvalidToken   = "INVALID_TOKEN"
)

// Error implements error.
func (e *RequestError) Error() string { return e.Text + ": " + e.Detail }

// VerifyRequest checks the Authorization header of a data-plane request
// against the public key that its session is locked to, by PicoD's rules: RS256,
// RS384 or RS512; exp required; exp, nbf and iat with 60 s of leeway; no other
// claim is looked at. A failure is a *RequestError.
func VerifyRequest(key *rsa.PublicKey, authorization string, now time.Time) error {
	if authorization == "" {
		return &RequestError{"Missing Authorization header", "the request needs a JWT signed by the session's key", ReasonMissingToken}
	}
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || scheme != "Bearer" || strings.Contains(token, " ") {
		return &RequestError{"Invalid Authorization header format", "want: Bearer <token>", ReasonMalformedToken}
	}
	if len(authorization) > maxAuthorization {
		return badToken(fmt.Sprintf("longer than %d bytes", maxAuthorization))
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256", "RS384", "RS512"}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(Leeway),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	_, err := parser.ParseWithClaims(token, jwt.MapClaims{}, func(*jwt.Token) (any, error) { return key, nil })
	if err != nil {
		return badToken(err.Error())
	}
	return nil
}

func badToken(why string) *RequestError {
	return &RequestError{"Invalid token", "JWT verification failed: " + why, ReasonInvalidToken}
}
