package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guard keeps a broken test from hanging; no test waits for it.
const guard = time.Minute

type signer struct {
	id      string
	alg     jose.SignatureAlgorithm
	private crypto.Signer
}

// signers are keys for every algorithm. They are slow to make.
var signers = sync.OnceValue(func() map[jose.SignatureAlgorithm]signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err) // the system has no randomness
		}
		return key
	}
	newRSA := must(rsa.GenerateKey(rand.Reader, 2048))
	_, newEd, err := ed25519.GenerateKey(rand.Reader)
	out := map[jose.SignatureAlgorithm]signer{jose.EdDSA: {"EdDSA", jose.EdDSA, must(newEd, err)}}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512} {
		out[alg] = signer{string(alg), alg, newRSA}
	}
	for alg, curve := range map[jose.SignatureAlgorithm]elliptic.Curve{jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521()} {
		out[alg] = signer{string(alg), alg, must(ecdsa.GenerateKey(curve, rand.Reader))}
	}
	return out
})

// rs256 is the key that most tokens are signed with.
func rs256() signer { return signers()[jose.RS256] }

func (s signer) public() any {
	return jose.JSONWebKey{Key: s.private.Public(), KeyID: s.id, Use: "sig", Algorithm: string(s.alg)}
}

// sign makes a token; header is what its header says beside alg and kid.
func (s signer) sign(t *testing.T, claims map[string]any, header map[jose.HeaderKey]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return s.signText(t, payload, header)
}

// signText is sign for claims as they are written.
func (s signer) signText(t *testing.T, payload []byte, header map[jose.HeaderKey]any) string {
	t.Helper()
	opts := &jose.SignerOptions{ExtraHeaders: header}
	made, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.private, KeyID: s.id}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return compact(t, made, payload)
}

func compact(t *testing.T, s jose.Signer, payload []byte) string {
	t.Helper()
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// provider is an OpenID provider.
type provider struct {
	*httptest.Server
	t *testing.T

	mu    sync.Mutex
	keys  []any
	asked map[string]int
	// answers are given in place of the real ones, by path.
	answers map[string]http.HandlerFunc
}

const (
	discovery = "/.well-known/openid-configuration"
	jwks      = "/keys"
)

// newProvider starts one that publishes keys.
func newProvider(t *testing.T, keys ...signer) *provider {
	t.Helper()
	p := &provider{t: t, asked: map[string]int{}, answers: map[string]http.HandlerFunc{}}
	p.publish(keys...)
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) publish(keys ...signer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = nil
	for _, k := range keys {
		p.keys = append(p.keys, k.public())
	}
}

// answer has a path answered by h from now on; nil means as is right.
func (p *provider) answer(path string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[path] = h
}

// fetches are how often the keys were asked for.
func (p *provider) fetches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[jwks]
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	instead, keys := p.answers[r.URL.Path], p.keys
	p.mu.Unlock()
	switch {
	case instead != nil:
		instead(w, r)
	case r.URL.Path == discovery:
		p.write(w, map[string]any{
			"issuer": p.URL, "jwks_uri": p.URL + jwks, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	case r.URL.Path == jwks:
		p.write(w, map[string]any{"keys": keys})
	default:
		http.NotFound(w, r)
	}
}

func (p *provider) write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.t.Error(err)
	}
}

// claims are those of a good token, but for what change does.
func (p *provider) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	out := map[string]any{"iss": p.URL, "aud": "agentcube-api", "sub": "jane", "iat": now, "exp": now + 300}
	maps.Copy(out, change)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

// client is what is tested. Its clock can be set.
type client struct {
	*Provider
	ahead time.Duration
}

func (p *provider) client(change func(*Config)) *client {
	p.t.Helper()
	transport, _ := p.Client().Transport.(*http.Transport)
	cfg := Config{Issuer: p.URL, Audience: "agentcube-api", TLS: transport.TLSClientConfig}
	if change != nil {
		change(&cfg)
	}
	made, err := New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	c := &client{Provider: made}
	made.keys.now = func() time.Time { return time.Now().Add(c.ahead) }
	return c
}

// ask authenticates the holder of a token.
func (c *client) ask(ctx context.Context, token string) (auth.Principal, error) {
	r := &http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}
	return c.Authenticate(r.WithContext(ctx))
}

// want holds the answer to a token to what it should be: 200 is a yes.
func (c *client) want(t *testing.T, what, token string, status int) *api.Error {
	t.Helper()
	who, err := c.ask(t.Context(), token)
	if status == http.StatusOK {
		if err != nil || who.Name != "oidc:jane" || who.Scopes != auth.ScopeCreate|auth.ScopeUse {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
		return nil
	}
	e, ok := errors.AsType[*api.Error](err)
	text := map[int]string{401: "Invalid or expired token", 403: "missing role", 503: "could not be checked"}[status]
	if !ok || e.Status != status || !strings.Contains(e.Text, text) || status == 503 && e.RetryAfter == 0 {
		t.Errorf("%s: %v, want %d %q", what, err, status, text)
	}
	return e
}
