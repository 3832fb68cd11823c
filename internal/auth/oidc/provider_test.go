package oidc

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// TestAlgorithms: all that need a private key are good, and no others.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	var all []signer
	for _, s := range signers() {
		all = append(all, s)
	}
	p := newProvider(t, all...)
	c := p.client(nil)
	if len(all) != 10 {
		t.Fatalf("there are %d algorithms", len(all))
	}
	for _, s := range all {
		c.want(t, string(s.alg), s.sign(t, p.claims(nil), nil), http.StatusOK)
	}
	// The public key, which everybody knows, as the secret of a symmetric algorithm.
	public, err := json.Marshal(rs256().private.Public().(*rsa.PublicKey).N.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(p.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	symmetric, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: public}, (&jose.SignerOptions{}).WithHeader("kid", "RS256"))
	if err != nil {
		t.Fatal(err)
	}
	c.want(t, "HS256", compact(t, symmetric, payload), 401)
	c.want(t, "none", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"RS256"}`))+"."+base64.RawURLEncoding.EncodeToString(payload)+".", 401)
	other := rs256()
	other.private = signers()[jose.ES256].private
	other.alg = jose.ES256 // under the name of the RSA key
	c.want(t, "another key's name", other.sign(t, p.claims(nil), nil), 401)
}

// TestTokens: what a token has to say.
func TestTokens(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	c := p.client(nil)
	now := time.Now().Unix()
	typ := func(of string) map[jose.HeaderKey]any { return map[jose.HeaderKey]any{jose.HeaderType: of} }
	for _, test := range []struct {
		name   string
		claims map[string]any
		header map[jose.HeaderKey]any
		status int
	}{
		{"all that is needed", nil, nil, 200},
		{"several audiences", map[string]any{"aud": []string{"account", "agentcube-api"}}, nil, 200},
		{"another audience", map[string]any{"aud": "agentcube"}, nil, 401},
		{"other audiences", map[string]any{"aud": []string{"account", "agentcube-api2"}}, nil, 401},
		{"no audience", map[string]any{"aud": nil}, nil, 401},
		{"another issuer", map[string]any{"iss": p.URL + "/"}, nil, 401},
		{"no issuer", map[string]any{"iss": nil}, nil, 401},
		{"just expired", map[string]any{"exp": now - 25}, nil, 200},
		{"expired", map[string]any{"exp": now - 31}, nil, 401},
		{"never expires", map[string]any{"exp": nil}, nil, 401},
		{"expires in words", map[string]any{"exp": "tomorrow"}, nil, 401},
		{"about to be valid", map[string]any{"nbf": now + 25}, nil, 200},
		{"not yet valid", map[string]any{"nbf": now + 60}, nil, 401},
		{"no subject", map[string]any{"sub": nil}, nil, 401},
		{"an empty subject", map[string]any{"sub": ""}, nil, 401},
		{"a subject of two lines", map[string]any{"sub": "jane\njohn"}, nil, 401},
		{"a long subject", map[string]any{"sub": strings.Repeat("j", 256)}, nil, 401},
		{"a subject that is a number", map[string]any{"sub": 7}, nil, 401},
		{"an access token by its header", nil, typ("at+jwt"), 200},
		{"a JWT by its header", nil, typ("JWT"), 200},
		{"a logout token by its header", nil, typ("logout+jwt"), 401},
		{"an access token of Keycloak's", map[string]any{"typ": "Bearer"}, nil, 200},
		{"an ID token of Keycloak's", map[string]any{"typ": "ID"}, nil, 401},
		{"a refresh token of Keycloak's", map[string]any{"typ": "Refresh"}, nil, 401},
		{"an ID token with the hash of an access token", map[string]any{"at_hash": "x"}, nil, 401},
		{"an ID token with the hash of a code", map[string]any{"c_hash": "x"}, nil, 401},
		{"a logout token", map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}, nil, 401},
		{"a token that is bound to a key", map[string]any{"cnf": map[string]any{"jkt": "x"}}, nil, 401},
	} {
		e := c.want(t, test.name, rs256().sign(t, p.claims(test.claims), test.header), test.status)
		if e != nil && !strings.Contains(e.Hint, p.URL+" for the audience agentcube-api") {
			t.Errorf("%s: the hint is %q", test.name, e.Hint)
		}
	}
	// Names are to the letter, whichever comes last.
	for _, text := range []struct {
		claims, more string
		status       int
	}{{"other", `"AUD":"agentcube-api"`, 401}, {"agentcube-api", `"SUB":"root"`, 200}} {
		payload, err := json.Marshal(p.claims(map[string]any{"aud": text.claims}))
		if err != nil {
			t.Fatal(err)
		}
		payload = append(payload[:len(payload)-1], ","+text.more+"}"...)
		c.want(t, text.more, rs256().signText(t, payload, nil), text.status)
	}
	lax := p.client(func(c *Config) { c.Audience = "" })
	lax.want(t, "whatever audience", rs256().sign(t, p.claims(map[string]any{"aud": "other"}), nil), 200)
	good := rs256().sign(t, p.claims(nil), nil)
	c.want(t, "changed", good[:len(good)-8]+"AAAAAAAA", 401)
	c.want(t, "long", rs256().sign(t, p.claims(map[string]any{"x": strings.Repeat("x", 16<<10)}), nil), 401)
	who, err := c.Authenticate((&http.Request{Header: http.Header{"Authorization": {"bearer " + good}}}).WithContext(t.Context()))
	if err != nil || who.Name != "oidc:jane" {
		t.Errorf("in lower case: %+v, %v", who, err)
	}
}

// TestStrangers: what is not of this provider is refused without its being asked.
func TestStrangers(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	c := p.client(nil)
	for _, token := range []string{
		"", "ac_opaque", "a.b.c", rs256().sign(t, p.claims(map[string]any{"iss": "https://kubernetes.default.svc"}), nil),
	} {
		c.want(t, token, token, 401)
	}
	if _, err := c.Authenticate(&http.Request{}); err == nil || !strings.Contains(err.Error(), "Missing authorization header") {
		t.Errorf("without a token: %v", err)
	}
	if n := len(p.asked); n != 0 {
		t.Errorf("the provider was asked for %v", p.asked)
	}
}

// TestRoles: where they are listed, and what they give.
func TestRoles(t *testing.T) {
	t.Parallel()
	p := newProvider(t, rs256())
	realm := func(roles any) map[string]any { return map[string]any{"realm_access": map[string]any{"roles": roles}} }
	const path = "realm_access.roles"
	for _, test := range []struct {
		name, claim string
		claims      map[string]any
		scopes      auth.Scopes // 0: refused
	}{
		{"by a path", path, realm([]string{"other", "sandbox:invoke"}), auth.ScopeCreate | auth.ScopeUse},
		{"an administrator", path, realm([]string{"admin", "sandbox:invoke"}), auth.AllScopes},
		{"an administrator without the role", path, realm([]string{"admin"}), 0},
		{"one role", path, realm("sandbox:invoke"), auth.ScopeCreate | auth.ScopeUse},
		{"words that are one role", path, realm("no sandbox:invoke"), 0},
		{"a role in other letters", path, realm([]string{"Sandbox:Invoke"}), 0},
		{"a list with other things", path, realm([]any{1, nil, "sandbox:invoke"}), auth.ScopeCreate | auth.ScopeUse},
		{"no list", path, realm(map[string]any{"sandbox:invoke": true}), 0},
		{"nowhere", path, nil, 0},
		{"null", path, map[string]any{"realm_access": json.RawMessage("null")}, 0},
		{"a name like the whole path wins", path, map[string]any{path: []string{"sandbox:invoke"}, "realm_access": map[string]any{"roles": []string{}}},
			auth.ScopeCreate | auth.ScopeUse},
		{"a name like the whole path wins, also when it says no", path, map[string]any{path: []string{}, "realm_access": map[string]any{"roles": []string{"sandbox:invoke"}}}, 0},
		{"a URL", "https://cube.example/roles", map[string]any{"https://cube.example/roles": []string{"sandbox:invoke"}}, auth.ScopeCreate | auth.ScopeUse},
		{"words of a scope", "scope", map[string]any{"scope": "openid sandbox:invoke"}, auth.ScopeCreate | auth.ScopeUse},
	} {
		c := p.client(func(c *Config) { c.RoleClaim, c.RequiredRole, c.AdminRole = test.claim, "sandbox:invoke", "admin" })
		token := rs256().sign(t, p.claims(test.claims), nil)
		if test.scopes == 0 {
			c.want(t, test.name, token, 403)
			continue
		}
		if who, err := c.ask(t.Context(), token); err != nil || who.Scopes != test.scopes {
			t.Errorf("%s: %v, %v", test.name, who.Scopes, err)
		}
	}
	p.client(func(c *Config) { c.RoleClaim = path }).want(t, "no role is required", rs256().sign(t, p.claims(realm([]string{"admin"})), nil), 200)
}

// TestConfig: what makes no sense is refused.
func TestConfig(t *testing.T) {
	t.Parallel()
	for i, cfg := range []Config{
		{Issuer: "http://issuer.example"}, {}, {Issuer: "https://issuer.example", RequiredRole: "a"}, {Issuer: "https://issuer.example", AdminRole: "a"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%d is taken: %+v", i, cfg)
		}
	}
	if !slices.Contains(algorithms(), "EdDSA") {
		t.Error("EdDSA is missing")
	}
}
