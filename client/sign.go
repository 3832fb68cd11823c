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
)

// keyBits is the size of session keys.
const keyBits = 2048

// tokenLife is how long the signature of one request is valid.
const tokenLife = 5 * time.Minute

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

// signRequest makes the token of one data-plane request. A JSON body is bound
// by its hash; other requests have none.
func signRequest(key *rsa.PrivateKey, body []byte, now time.Time) (string, error) {
	claims := jwt.MapClaims{
		"iss": "sdk-client",
		"iat": now.Unix(),
		"exp": now.Add(tokenLife).Unix(),
	}
	if body != nil {
		sum := sha256.Sum256(body)
		claims["body_sha256"] = hex.EncodeToString(sum[:])
	}
	return sign(key, claims)
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
