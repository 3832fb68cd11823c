// Package authtest is what tests of the planes authenticate with.
package authtest

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

// Tokens is an [auth.Authenticator] that knows callers by their tokens.
type Tokens map[string]auth.Principal

// Authenticate implements auth.Authenticator, with the texts of the real ones.
func (ts Tokens) Authenticate(r *http.Request) (auth.Principal, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return auth.Principal{}, api.Errorf(http.StatusUnauthorized, api.CodeUnauthorized, "Missing authorization header")
	}
	p, ok := ts[strings.TrimPrefix(header, "Bearer ")]
	if !ok {
		return p, api.Errorf(http.StatusUnauthorized, api.CodeUnauthorized, "Invalid or expired token")
	}
	return p, nil
}

// User is a caller with a name of their own who may create and use sessions.
func User(name string) auth.Principal {
	return auth.Principal{Name: name, Scopes: auth.ScopeCreate | auth.ScopeUse}
}

// Admin is a caller who may do everything that there is a scope for.
func Admin(name string) auth.Principal { return auth.Principal{Name: name, Scopes: auth.AllScopes} }

// NewKey makes an RSA key as sessions have it. That is slow: tests share keys.
func NewKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the system has no randomness
	}
	return key
}
