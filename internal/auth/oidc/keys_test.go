package oidc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// another is a signer of another name.
func another(id string) signer {
	s := signers()[jose.ES256]
	s.id = id
	return s
}

// TestKeysChange: a new key is good at once, one that was withdrawn soon no more.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	first, second := another("first"), signer{"second", jose.ES384, signers()[jose.ES384].private}
	p := newProvider(t, first)
	c := p.client(nil)
	old, fresh := first.sign(t, p.claims(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}), nil), second.sign(t, p.claims(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}), nil)
	c.want(t, "old", old, 200)
	p.publish(second)
	c.want(t, "fresh, a moment after the keys were fetched", fresh, 401)
	c.ahead += renewPause
	c.want(t, "fresh", fresh, 200)
	c.want(t, "old, withdrawn", old, 401)

	p.publish(first)
	c.want(t, "withdrawn, but nobody has heard", fresh, 200)
	c.ahead += renewAfter + time.Second
	c.want(t, "withdrawn, and this one has the keys renewed", fresh, 200)
	eventually(t, "it is refused", func() bool { _, err := c.ask(t.Context(), fresh); return err != nil })
}

// TestInventedKeys: tokens with names of keys that there are not have the provider asked
// once in a while, and those with wrong signatures not at all.
func TestInventedKeys(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	c := p.client(nil)
	c.want(t, "good", rs256().sign(t, p.claims(nil), nil), 200)
	good := rs256().sign(t, p.claims(nil), nil)
	c.ahead += renewPause
	for range 5 {
		c.want(t, "wrong signature", good[:len(good)-8]+"AAAAAAAA", 401)
	}
	if n := p.fetches(); n != 1 {
		t.Errorf("the keys were fetched %d times for wrong signatures", n)
	}
	for i := range 20 {
		c.want(t, "invented", another(strings.Repeat("x", i+1)).sign(t, p.claims(nil), nil), 401)
	}
	if n := p.fetches(); n != 2 {
		t.Errorf("the keys were fetched %d times in all, want 2", n)
	}
	c.want(t, "good", good, 200)
}

// TestFetchedOnce: all who come at once wait for one fetch, also when the first of them
// has lost patience.
func TestFetchedOnce(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	entered, release := make(chan struct{}), make(chan struct{})
	p.answer(discovery, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		p.answer(discovery, nil)
		p.ServeHTTP(w, r)
	})
	c, good := p.client(nil), rs256().sign(t, p.claims(nil), nil)
	impatient, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := c.ask(impatient, good); gone <- err }()
	<-entered
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { c.want(t, "patient", good, 200) })
	}
	close(release)
	wg.Wait()
	if n := p.fetches(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestProviderAway: without keys a token cannot be checked, until the provider comes;
// with keys it is not missed for a while.
func TestProviderAway(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	c := p.client(nil)
	good := rs256().sign(t, p.claims(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}), nil)
	away := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	p.answer(discovery, away)
	if err := c.Reach(t.Context()); err == nil || !strings.Contains(err.Error(), p.URL) {
		t.Errorf("it is reached: %v", err)
	}
	for range 5 {
		c.want(t, "away from the beginning", good, 503)
	}
	if n := p.asked[discovery]; n != 1 {
		t.Errorf("it was asked %d times at once", n)
	}
	p.answer(discovery, nil)
	p.answer(jwks, away)
	c.ahead += awayPause
	c.want(t, "its keys are away", good, 503)
	p.answer(jwks, nil)
	c.ahead += awayPause
	if err := c.Reach(t.Context()); err != nil {
		t.Errorf("it is not reached: %v", err)
	}
	c.want(t, "there", good, 200)

	p.answer(jwks, away)
	c.ahead += renewAfter + time.Second
	c.want(t, "away", good, 200)
	c.want(t, "a key that may be new", another("new").sign(t, p.claims(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}), nil), 503)
	c.ahead += keysFor
	c.want(t, "away for too long", good, 503)
}

// TestNotThere: nobody listens where the provider should be.
func TestNotThere(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	c, good := p.client(nil), rs256().sign(t, p.claims(nil), nil)
	p.Close()
	c.want(t, "not there", good, 503)
}

// TestHostileProvider: what is not a provider's document is none, and no other server
// is asked for it.
func TestHostileProvider(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var p *provider
	plain := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("another server is asked for %s", r.URL)
		p.ServeHTTP(w, r)
	}), ReadHeaderTimeout: guard}}
	plain.Start()
	t.Cleanup(plain.Close)
	for name, answers := range map[string]func(p *provider){
		"another issuer": func(p *provider) {
			p.answer(discovery, func(w http.ResponseWriter, _ *http.Request) {
				p.write(w, map[string]any{"issuer": "https://issuer.example", "jwks_uri": p.URL + jwks})
			})
		},
		"keys in plain text": func(p *provider) {
			p.answer(discovery, func(w http.ResponseWriter, _ *http.Request) {
				p.write(w, map[string]any{"issuer": p.URL, "jwks_uri": plain.URL + jwks})
			})
		},
		"a redirect": func(p *provider) {
			p.answer(jwks, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL+jwks, http.StatusFound) })
		},
		"a large document": func(p *provider) {
			p.answer(discovery, func(w http.ResponseWriter, _ *http.Request) {
				p.write(w, map[string]any{"issuer": p.URL, "jwks_uri": p.URL + jwks, "x": strings.Repeat("x", maxDocument)})
			})
		},
		"large keys": func(p *provider) {
			p.answer(jwks, func(w http.ResponseWriter, _ *http.Request) {
				p.write(w, map[string]any{"keys": []any{rs256().public()}, "x": strings.Repeat("x", maxDocument)})
			})
		},
		"many keys": func(p *provider) {
			p.answer(jwks, func(w http.ResponseWriter, _ *http.Request) {
				all := make([]any, maxKeys+1)
				for i := range all {
					all[i] = rs256().public()
				}
				p.write(w, map[string]any{"keys": all})
			})
		},
		"no keys": func(p *provider) { p.publish() },
		"keys to encrypt with": func(p *provider) {
			p.keys = []any{jose.JSONWebKey{Key: rs256().private.Public(), KeyID: "RS256", Use: "enc"}}
		},
		"private keys": func(p *provider) { p.keys = []any{jose.JSONWebKey{Key: rs256().private, KeyID: "RS256"}} },
		"no JSON": func(p *provider) {
			p.answer(jwks, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		},
	} {
		p = newProvider(t, rs256())
		answers(p)
		p.client(nil).want(t, name, rs256().sign(t, p.claims(nil), nil), 503)
	}
	// One key that nobody knows spoils no other.
	p = newProvider(t)
	p.keys = []any{map[string]any{"kty": "new", "kid": "x"}, map[string]any{"kty": "RSA", "n": 1}, rs256().public()}
	p.client(nil).want(t, "unknown keys", rs256().sign(t, p.claims(nil), nil), 200)
	// A provider that the machine's authorities do not vouch for.
	p.client(func(c *Config) { c.TLS = nil }).want(t, "unknown authority", rs256().sign(t, p.claims(nil), nil), 503)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never happened: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
