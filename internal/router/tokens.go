package router

import (
	"crypto/rsa"
	"fmt"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// tokenWait is how long a token that was signed ahead may wait for its request;
// most of its life is then still to come. It is by the clock that the token was
// signed by, and is checked by, so a token from before that was set is not used.
const tokenWait = time.Minute

// tokens are the Router's tokens for one managed session, each for one request.
// While a request is under way the token of the next one is signed, as signing
// takes longer than all else that the Router does for a request.
type tokens struct {
	key     *rsa.PrivateKey
	session string

	mu      sync.Mutex
	next    string    // "" or a token that nobody has had
	signed  time.Time // without a monotonic reading
	signing bool
}

// take returns a token for one request.
func (ts *tokens) take() (string, error) {
	now := time.Now()
	ts.mu.Lock()
	token, signed := ts.next, ts.signed
	ts.next = ""
	ts.mu.Unlock()
	if age := now.Sub(signed); token != "" && age >= 0 && age < tokenWait {
		return token, nil
	}
	return ts.sign(now)
}

// signAhead signs the token of the next request in the background, unless that
// is done or under way. The caller waits for what it has begun with the function
// that is returned.
func (ts *tokens) signAhead() (wait func()) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.signing || ts.next != "" {
		return func() {}
	}
	ts.signing = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		now := time.Now()
		token, err := ts.sign(now)
		ts.mu.Lock()
		defer ts.mu.Unlock()
		ts.signing = false
		if err == nil { // otherwise the request itself will fail at it
			ts.next, ts.signed = token, now.Round(0)
		}
	}()
	return func() { <-done }
}

func (ts *tokens) sign(now time.Time) (string, error) {
	token, err := auth.SignRouter(ts.key, ts.session, now)
	if err != nil {
		return "", fmt.Errorf("sign request: %w", err)
	}
	return token, nil
}
