package client

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"runtime"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
)

// keyBits is the size of session keys.
const keyBits = 2048

const (
	// tokenLife is how long the signature of one request is valid.
	tokenLife = 5 * time.Minute
	// issuer is the "iss" of the tokens of all SDKs.
	issuer = "sdk-client"
)

// NewKey makes a session key. CreateSession does so by itself; a caller that
// makes keys ahead of time saves the tenth of a second that it may take.
func NewKey() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("make session key: %w", err)
	}
	return key, nil
}

// keyMakers is how many keys to make at the same time: one a core.
func keyMakers() int { return runtime.GOMAXPROCS(0) }

// encodePublicKey is the public half as the create request carries it: base64
// without padding of the PEM text.
func encodePublicKey(key *rsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", fmt.Errorf("encode session key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return base64.RawStdEncoding.EncodeToString(text), nil
}

// signRequest makes the token of one data-plane request, which is good for this
// request to this session alone, once. A JSON body is bound by its hash; a form has
// a signature of its own, see signForm.
func signRequest(in call, now time.Time) (string, error) {
	if in.jti == "" {
		in.jti = rand.Text()
	}
	claims := jwt.MapClaims{
		"iss": issuer, "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
		"jti": in.jti, "sid": in.session, "htm": in.method, "htu": api.RequestTarget(in.inside, in.query.Encode()),
	}
	body := in.raw
	if in.json != nil {
		body = in.json
	}
	if body != nil {
		sum := sha256.Sum256(body)
		claims["body_sha256"] = hex.EncodeToString(sum[:])
	}
	return sign(in.key, claims)
}

// signForm makes the field "signature" with which a form with a file ends. It
// belongs to the token with the same jti; sum is the SHA-256 of the file. Its
// length does not depend on what it says, but on jti, path and mode.
func signForm(key *rsa.PrivateKey, jti, path, mode string, sum [sha256.Size]byte, now time.Time) (string, error) {
	return sign(key, jwt.MapClaims{
		"iss": issuer, "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
		"jti": jti, "path": path, "mode": mode, "content_sha256": hex.EncodeToString(sum[:]),
	})
}

// signAgreement makes the api.HeaderSessionSignature of one request. path is
// that of the API: what a proxy puts before it is not signed.
func signAgreement(key *rsa.PrivateKey, session, method, path string, body []byte, now time.Time) (string, error) {
	sum := sha256.Sum256(body)
	return sign(key, jwt.MapClaims{
		"sid": session, "htm": method, "htu": path, "body_sha256": hex.EncodeToString(sum[:]),
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
	})
}

func sign(key *rsa.PrivateKey, claims jwt.MapClaims) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign request: %w", err)
	}
	return token, nil
}
