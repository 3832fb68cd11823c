package router

import (
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/auth/authtest"
)

// TestTokensAreForOneRequest: PicoD refuses a token that it has seen, so no two
// requests may get the same one, whoever signed it when.
func TestTokensAreForOneRequest(t *testing.T) {
	t.Parallel()
	ts := &tokens{key: authtest.NewKey(), session: "s1"}
	const requests = 40
	got := make(chan string, requests)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			token, err := ts.take()
			if err != nil {
				t.Error(err)
			}
			ts.signAhead()()
			got <- token
		})
	}
	wg.Wait()
	close(got)
	seen := map[any]bool{}
	for token := range got {
		claims := jwt.MapClaims{}
		if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return &ts.key.PublicKey, nil }); err != nil {
			t.Fatal(err)
		}
		if claims["session_id"] != ts.session || seen[claims["jti"]] {
			t.Errorf("claims %v are of another session or were there before", claims)
		}
		seen[claims["jti"]] = true
	}
}

func TestTokenSignedAhead(t *testing.T) {
	t.Parallel()
	ts := &tokens{key: authtest.NewKey(), session: "s1"}
	ts.signAhead()()
	ahead := ts.next
	ts.signAhead()()
	if ahead == "" || ts.next != ahead {
		t.Errorf("signing twice ahead: %q became %q", ahead, ts.next)
	}
	if token, err := ts.take(); err != nil || token != ahead {
		t.Errorf("take = %q, %v, want the one signed ahead", token, err)
	}
	// It has waited for too long, or the clock was set meanwhile: the sandbox
	// would refuse it.
	for _, off := range []time.Duration{-tokenWait - time.Second, -time.Hour, time.Hour} {
		ts.signAhead()()
		ahead, ts.signed = ts.next, ts.signed.Add(off)
		if token, err := ts.take(); err != nil || token == "" || token == ahead {
			t.Errorf("take %v off = %q, %v, want a fresh one", off, token, err)
		}
	}
}
