package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

// LocalName is the principal name of whoever holds the local token.
const LocalName = "local"

const (
	tokenPrefix   = "ac_"
	minTokenChars = 32
	maxTokenChars = 512
)

// Local authenticates the holder of one token, who may do everything.
type Local struct {
	digest [sha256.Size]byte
}

// NewLocal returns an authenticator for token, which is what EnsureTokenFile
// or ReadTokenFile returned.
func NewLocal(token string) *Local {
	return &Local{digest: sha256.Sum256([]byte(token))}
}

// Authenticate implements Authenticator. The comparison takes the same time
// whatever is wrong with the token.
func (l *Local) Authenticate(r *http.Request) (Principal, error) {
	token, apiErr := Bearer(r)
	if apiErr != nil {
		return Principal{}, apiErr.WithHint("send the token as \"Authorization: Bearer <token>\"")
	}
	got := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(got[:], l.digest[:]) != 1 {
		return Principal{}, WrongToken()
	}
	return Principal{Name: LocalName, Scopes: AllScopes}, nil
}

// EnsureTokenFile returns the token in the file at path, making the file, with
// mode 0600 in a directory with mode 0700, when there is none. Of two processes
// that start at the same time one makes the file and both return its token; a
// half-written file is never seen.
func EnsureTokenFile(path string) (token string, created bool, err error) {
	token, err = ReadTokenFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, false, err
	}
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", false, fmt.Errorf("make token: %w", err)
	}
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(raw[:])
	err = createPrivateFile(path, []byte(token+"\n"))
	if errors.Is(err, fs.ErrExist) {
		token, err = ReadTokenFile(path)
		return token, false, err
	}
	if err != nil {
		return "", false, fmt.Errorf("make token file: %w", err)
	}
	return token, true, nil
}

// ReadTokenFile returns the token in the file at path. The error matches
// fs.ErrNotExist when there is no file; a file that others can read, or that
// holds something that is not a token, is refused with a *FileError.
func ReadTokenFile(path string) (string, error) {
	data, err := readPrivateFile(path)
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if !validToken(token) {
		return "", fmt.Errorf("read token file: %w", &FileError{
			Path:    path,
			Problem: fmt.Sprintf("does not hold a token of %d to %d letters, digits and \"-._~+/=\"", minTokenChars, maxTokenChars),
			Fix:     "remove the file; the next \"agentcube up\" makes a new one",
		})
	}
	return token, nil
}

func validToken(token string) bool {
	if len(token) < minTokenChars || len(token) > maxTokenChars {
		return false
	}
	for _, c := range []byte(token) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && !strings.ContainsRune("-._~+/=", rune(c)) {
			return false
		}
	}
	return true
}
