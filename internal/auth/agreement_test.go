package auth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
)

func TestAgreement(t *testing.T) {
	key, other := authtest.NewKey(), authtest.NewKey()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := auth.Agreement{SessionID: "s", Method: "POST", Path: "/v1/sessions/s/fork", Body: []byte(`{"count":1}`)}
	digest := sha256.Sum256(want.Body)
	tests := []struct {
		name   string
		method jwt.SigningMethod
		key    any
		change func(jwt.MapClaims)
		ok     bool
	}{
		{"RS256", jwt.SigningMethodRS256, key, func(jwt.MapClaims) {}, true},
		{"PS256", jwt.SigningMethodPS256, key, func(jwt.MapClaims) {}, true},
		{"clock a little ahead", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["iat"], c["exp"] = now.Unix()+50, now.Unix()+350 }, true},
		{"clock a little behind", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["iat"], c["exp"] = now.Unix()-350, now.Unix()-50 }, true},

		{"another key", jwt.SigningMethodRS256, other, func(jwt.MapClaims) {}, false},
		{"RS512", jwt.SigningMethodRS512, key, func(jwt.MapClaims) {}, false},
		{"none", jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, func(jwt.MapClaims) {}, false},
		{"HS256", jwt.SigningMethodHS256, []byte("x"), func(jwt.MapClaims) {}, false},
		{"another session", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["sid"] = "t" }, false},
		{"another method", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["htm"] = "post" }, false},
		{"another path", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["htu"] = "/v1/sessions/s/checkpoints" }, false},
		{"a URL", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["htu"] = "http://localhost:8080" + want.Path }, false},
		{"another body", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["body_sha256"] = strings.Repeat("0", 64) }, false},
		{"expired", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["iat"], c["exp"] = now.Unix()-361, now.Unix()-61 }, false},
		{"of the future", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["iat"], c["exp"] = now.Unix()+90, now.Unix()+100 }, false},
		{"too long", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["exp"] = now.Unix() + 301 }, false},
		{"long jti", jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { c["jti"] = strings.Repeat("x", 129) }, false},
	}
	for _, missing := range []string{"sid", "htm", "htu", "body_sha256", "jti", "iat", "exp"} {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.ok, last.change = "no "+missing, false, func(c jwt.MapClaims) { delete(c, missing) }
	}
	agreements := auth.NewAgreements(nil)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			claims := jwt.MapClaims{
				"sid": want.SessionID, "htm": want.Method, "htu": want.Path, "body_sha256": hex.EncodeToString(digest[:]),
				"jti": test.name, "iat": now.Unix(), "exp": now.Add(auth.TokenLife).Unix(),
			}
			test.change(claims)
			token, err := jwt.NewWithClaims(test.method, claims).SignedString(test.key)
			if err != nil {
				t.Fatal(err)
			}
			err = agreements.Verify(t.Context(), &key.PublicKey, token, want, now)
			if test.ok != (err == nil) || !test.ok && !errors.Is(err, auth.ErrNotAgreed) {
				t.Errorf("Verify = %v, want it accepted: %t", err, test.ok)
			}
			if err := agreements.Verify(t.Context(), &key.PublicKey, token, want, now.Add(time.Second)); !errors.Is(err, auth.ErrNotAgreed) {
				t.Errorf("Verify of the same signature once more = %v, want ErrNotAgreed", err)
			}
		})
	}
	for _, token := range []string{"", "x", "a.b.c", strings.Repeat("x", 20<<10)} {
		if err := agreements.Verify(t.Context(), &key.PublicKey, token, want, now); !errors.Is(err, auth.ErrNotAgreed) {
			t.Errorf("Verify of nonsense = %v, want ErrNotAgreed", err)
		}
	}
}

// TestAgreementCountsOnce: of many who show the same signature, one is let in.
func TestAgreementCountsOnce(t *testing.T) {
	key := authtest.NewKey()
	now := time.Now()
	want := auth.Agreement{SessionID: "s", Method: "POST", Path: "/p"}
	digest := sha256.Sum256(nil)
	agreements := auth.NewAgreements(nil)
	for round := range 3 {
		token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
			"sid": "s", "htm": "POST", "htu": "/p", "body_sha256": hex.EncodeToString(digest[:]),
			"jti": fmt.Sprint(round), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		var accepted atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if agreements.Verify(t.Context(), &key.PublicKey, token, want, now) == nil {
					accepted.Add(1)
				}
			})
		}
		wg.Wait()
		if n := accepted.Load(); n != 1 {
			t.Errorf("round %d: accepted %d times, want once", round, n)
		}
		now = now.Add(10 * time.Minute) // what was remembered is forgotten
	}
}
