package token

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// bearer is a header with claims that a key has signed, valid for a minute.
func bearer(t *testing.T, key *rsa.PrivateKey, claims jwt.MapClaims) string {
	t.Helper()
	claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(time.Minute).Unix()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + signRaw(t, key, string(text))
}

// offer is what the control plane sends to lock a sandbox to a key.
func offer(t *testing.T, bootstrap, key *rsa.PrivateKey, sandbox string) string {
	t.Helper()
	return bearer(t, bootstrap, jwt.MapClaims{
		"sessionId": "s1", "sandboxId": sandbox,
		"session_public_key": base64.RawStdEncoding.EncodeToString([]byte(publicPEM(t, &key.PublicKey))),
	})
}

var request = Request{Method: "GET", Target: "/api/files"}

// opens reports whether a key opens a gate.
func opens(t *testing.T, g *Gate, key *rsa.PrivateKey) bool {
	t.Helper()
	_, err := g.Authorize(bearer(t, key, jwt.MapClaims{"sid": "s1"}), request)
	return err == nil
}

// TestFirstKeyWins: of two keys that were both looked at before either was taken, the
// one that is taken first is the only one.
func TestFirstKeyWins(t *testing.T) {
	bootstrap, first, second := newKey(t), newKey(t), newKey(t)
	g := New(Config{Bootstrap: &bootstrap.PublicKey})
	var offers []*Offer
	for _, key := range []*rsa.PrivateKey{first, second} {
		o, err := g.Offer(offer(t, bootstrap, key, ""))
		if err != nil {
			t.Fatal(err)
		}
		offers = append(offers, o)
	}
	if err := g.Accept(offers[0], Given{}); err != nil {
		t.Fatal(err)
	}
	certificate := g.CertificatePEM()
	if err := g.Accept(offers[1], Given{}); !errors.Is(err, ErrAlreadyInitialized) {
		t.Errorf("the second key: %v", err)
	}
	if !opens(t, g, first) || opens(t, g, second) || g.CertificatePEM() != certificate {
		t.Error("the second key has changed the session")
	}
}

// TestOfferOfFormerSandbox: what was offered to a sandbox that has become another one
// meanwhile, which is a copy, is not for it.
func TestOfferOfFormerSandbox(t *testing.T) {
	bootstrap, key := newKey(t), newKey(t)
	g := New(Config{Bootstrap: &bootstrap.PublicKey, SandboxID: "original"})
	o, err := g.Offer(offer(t, bootstrap, key, "original"))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Assume(Identity{Bootstrap: &bootstrap.PublicKey, SandboxID: "copy"}); err != nil {
		t.Fatal(err)
	}
	if err := g.Accept(o, Given{}); !errors.Is(err, ErrInvalidToken) {
		t.Errorf("accepted: %v", err)
	}
	if opens(t, g, key) {
		t.Error("the key of the original opens the copy")
	}
}

// TestCopyForgetsKey: a copy obeys nobody until it is told whom, and then not the key
// of the original, whose tokens name another session.
func TestCopyForgetsKey(t *testing.T) {
	bootstrap, key, other := newKey(t), newKey(t), newKey(t)
	g := New(Config{Bootstrap: &bootstrap.PublicKey, SandboxID: "original"})
	lockTo := func(key *rsa.PrivateKey, sandbox string) {
		t.Helper()
		o, err := g.Offer(offer(t, bootstrap, key, sandbox))
		if err == nil {
			err = g.Accept(o, Given{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lockTo(key, "original")
	if !opens(t, g, key) {
		t.Fatal("the key does not open the original")
	}
	was := g.CertificatePEM()
	if err := g.Assume(Identity{Bootstrap: &bootstrap.PublicKey, SandboxID: "copy"}); err != nil {
		t.Fatal(err)
	}
	if opens(t, g, key) || g.CertificatePEM() != "" {
		t.Error("the copy knows the key, or the certificate, of the original")
	}
	lockTo(other, "copy")
	if opens(t, g, key) || !opens(t, g, other) || g.CertificatePEM() == was {
		t.Error("the copy is not its own session's")
	}
}

// TestUsedTokensAreBounded: the names of used tokens take so much memory and no more,
// and give it back when the tokens have expired.
func TestUsedTokensAreBounded(t *testing.T) {
	now := time.Now()
	r := newReplays(3)
	for i := range 5 {
		err := r.use(fmt.Sprint(i), now, now.Add(time.Minute))
		if i < 3 && err != nil || i >= 3 && !errors.Is(err, ErrTooManyTokens) {
			t.Errorf("token %d: %v", i, err)
		}
	}
	if len(r.until) != 3 {
		t.Errorf("%d tokens are remembered", len(r.until))
	}
	later := now.Add(2 * time.Minute)
	if err := r.use("later", later, later.Add(time.Minute)); err != nil || len(r.until) != 1 {
		t.Errorf("when they have expired: %v, %d are remembered", err, len(r.until))
	}
}
