// Package pubkey reads the RSA public keys that sessions are bound to. Its rules
// are those of the control plane, of the Router and of the agent in the sandbox:
// what one of them takes, all take.
package pubkey

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Bounds of RSA keys, in bits, and the least public exponent.
const (
	MinBits     = 2048
	MaxBits     = 8192
	minExponent = 65537
)

// ErrInvalid says that the text is not an RSA public key that AgentCube accepts.
var ErrInvalid = errors.New("invalid public key")

// ParsePEM decodes one PEM block PUBLIC KEY with an RSA key of MinBits to MaxBits
// and an odd public exponent of at least 65537. Errors match ErrInvalid; their
// text can be shown to the caller.
func ParsePEM(text string) (*rsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM block", ErrInvalid)
	}
	// The decoder passes over a block that is damaged to one that is not.
	if block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" || strings.Count(text, "-----BEGIN") != 1 {
		return nil, fmt.Errorf("%w: want one PEM block of type PUBLIC KEY", ErrInvalid)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: not a SubjectPublicKeyInfo structure", ErrInvalid)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: not an RSA key", ErrInvalid)
	}
	if bits := key.N.BitLen(); bits < MinBits || bits > MaxBits {
		return nil, fmt.Errorf("%w: %d bits; %d to %d are accepted", ErrInvalid, bits, MinBits, MaxBits)
	}
	if key.N.Bit(0) == 0 {
		return nil, fmt.Errorf("%w: even modulus", ErrInvalid)
	}
	if key.E < minExponent || key.E%2 == 0 {
		return nil, fmt.Errorf("%w: public exponent %d; odd and at least %d is accepted", ErrInvalid, key.E, minExponent)
	}
	return key, nil
}
