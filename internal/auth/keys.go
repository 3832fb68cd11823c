package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/volcano-sh/agentcube/internal/auth/pubkey"
)

// Bounds of RSA keys, in bits, and of their encoded public half, in bytes.
const (
	MinRSABits      = pubkey.MinBits
	MaxRSABits      = pubkey.MaxBits
	maxPublicKeyLen = 8 << 10
)

// ErrInvalidKey says that the text is not an RSA public key that AgentCube accepts.
var ErrInvalidKey = pubkey.ErrInvalid

// LoadOrCreateRSAKey returns the RSA private key in the file at path (PEM,
// PKCS#8 or PKCS#1), making an RSA-2048 key in a file with mode 0600 when there is none.
// Several processes that start at once get the same key. A file that others can
// read, or that holds something else, is refused with a *FileError and never
// replaced.
func LoadOrCreateRSAKey(path string) (*rsa.PrivateKey, error) {
	key, err := loadRSAKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = rsa.GenerateKey(rand.Reader, MinRSABits)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	err = createPrivateFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if errors.Is(err, fs.ErrExist) {
		return loadRSAKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("make key file: %w", err)
	}
	return key, nil
}

func loadRSAKey(path string) (*rsa.PrivateKey, error) {
	data, err := readPrivateFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	return parseRSAKey(path, data)
}

// ReadRSAKey returns the RSA private key in the file at path (PEM, PKCS#8 or PKCS#1),
// which others have put there, such as Kubernetes from a secret: the group of this
// process may read it as well.
func ReadRSAKey(path string) (*rsa.PrivateKey, error) {
	data, err := readFileFor(path, 0o027, "chmod 640 "+path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	return parseRSAKey(path, data)
}

// ReadCertifiedKey returns the RSA public key of the certificate in the file at path
// (PEM), of which nothing else counts.
func ReadCertifiedKey(path string) (*rsa.PublicKey, error) {
	data, err := readFileFor(path, 0, "")
	if err != nil {
		return nil, fmt.Errorf("read certificate file: %w", err)
	}
	refuse := func(problem string) error {
		return fmt.Errorf("read certificate file: %w", &FileError{Path: path, Problem: problem, Fix: "put the certificate of the Router's key there"})
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, refuse("does not hold a PEM block of type CERTIFICATE")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, refuse("holds a damaged certificate")
	}
	key, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < MinRSABits || key.N.BitLen() > MaxRSABits {
		return nil, refuse(fmt.Sprintf("holds a certificate of a key that is not RSA of %d to %d bits", MinRSABits, MaxRSABits))
	}
	return key, nil
}

func parseRSAKey(path string, data []byte) (*rsa.PrivateKey, error) {
	refuse := func(problem string) error {
		return fmt.Errorf("read key file: %w", &FileError{
			Path: path, Problem: problem,
			Fix: "restore it from a backup, or remove it to get a new key; living sessions do not survive a new key",
		})
	}
	block, rest := pem.Decode(data)
	if block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") || strings.TrimSpace(string(rest)) != "" {
		return nil, refuse("does not hold one PEM block of type PRIVATE KEY")
	}
	var parsed any
	var err error
	if block.Type == "RSA PRIVATE KEY" {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	} else {
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		// The parser's own text stays out: it may quote key material.
		return nil, refuse("holds a damaged private key")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, refuse("holds a private key that is not an RSA key")
	}
	if bits := key.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
		return nil, refuse(fmt.Sprintf("holds an RSA key of %d bits; %d to %d are accepted", bits, MinRSABits, MaxRSABits))
	}
	return key, nil
}

// ParseSessionPublicKey decodes the publicKey of a create request: base64 in
// the standard alphabet, padding optional, of a PEM block PUBLIC KEY with an RSA
// key of 2048 to 8192 bits and a public exponent of at least 65537. It returns
// the key and its PEM text in canonical form. Errors match ErrInvalidKey; their
// text can be shown to the caller.
func ParseSessionPublicKey(b64 string) (string, *rsa.PublicKey, error) {
	if len(b64) > maxPublicKeyLen {
		return "", nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalidKey, maxPublicKeyLen)
	}
	// Go's decoder skips line breaks; the contract knows none.
	if strings.ContainsAny(b64, "\r\n") {
		return "", nil, fmt.Errorf("%w: base64 text holds line breaks", ErrInvalidKey)
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(b64, "=") {
		encoding = base64.StdEncoding
	}
	text, err := encoding.Strict().DecodeString(b64)
	if err != nil {
		return "", nil, fmt.Errorf("%w: not base64 of the standard alphabet", ErrInvalidKey)
	}
	key, err := ParsePublicKeyPEM(string(text))
	if err != nil {
		return "", nil, err
	}
	canonical, err := PublicKeyPEM(key)
	if err != nil {
		return "", nil, err
	}
	return canonical, key, nil
}

// ParsePublicKeyPEM decodes a PEM block PUBLIC KEY under the rules of
// ParseSessionPublicKey.
func ParsePublicKeyPEM(text string) (*rsa.PublicKey, error) { return pubkey.ParsePEM(text) }

// PublicKeyPEM encodes key as one PEM block PUBLIC KEY with a final newline.
func PublicKeyPEM(key *rsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}
