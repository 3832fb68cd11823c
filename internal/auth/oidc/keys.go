package oidc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	// renewAfter is how old keys are when they are fetched anew, and keysFor how old they
	// may become while the provider is away: so long a key counts that it has withdrawn.
	renewAfter = 5 * time.Minute
	keysFor    = time.Hour
	// renewPause is between two fetches for tokens that are signed with a key which nobody
	// knows, and awayPause between two that fail. Those who make up tokens make no more
	// of them.
	renewPause = 10 * time.Second
	awayPause  = 2 * time.Second
	// fetchTimeout bounds a fetch, maxKeys the keys that it may bring.
	fetchTimeout = 10 * time.Second
	maxKeys      = 100
)

// keys are those that a provider signs with.
type keys struct {
	issuer  string
	client  *http.Client
	now     func() time.Time
	fetches singleflight.Group

	mu      sync.Mutex
	set     []jose.JSONWebKey
	fetched time.Time // the last time that it succeeded
	tried   time.Time // the last time
	failure error     // of the last time
}

func newKeys(issuer string, config *tls.Config) *keys {
	return &keys{issuer: issuer, client: newClient(issuer, config), now: time.Now}
}

// known are the keys, unless they are too old, and whether it is time for others.
func (k *keys) known() (set []jose.JSONWebKey, old bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := k.now().Sub(k.fetched)
	if k.fetched.IsZero() || age > keysFor {
		return nil, true
	}
	return k.set, age > renewAfter
}

// renew fetches the keys, unless that was done, or failed, a moment ago. All who want
// it wait for the same fetch, which does not depend on them. The error says that the
// provider is away, or why ctx ended.
func (k *keys) renew(ctx context.Context) error {
	select {
	case r := <-k.fetch():
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *keys) fetch() <-chan singleflight.Result {
	return k.fetches.DoChan("", func() (any, error) {
		k.mu.Lock()
		pause, failure := renewPause, k.failure
		if failure != nil {
			pause = awayPause
		}
		soon := !k.tried.IsZero() && k.now().Sub(k.tried) < pause
		k.mu.Unlock()
		if soon {
			return nil, failure
		}
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		set, err := k.download(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.tried, k.failure = k.now(), err
		if err == nil {
			k.set, k.fetched = set, k.tried
		}
		return nil, err
	})
}

// download asks the provider where its keys are, and for them.
func (k *keys) download(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, k.client), k.issuer)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", k.issuer, err)
	}
	var document struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return nil, fmt.Errorf("discover %s: %w", k.issuer, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, document.Keys, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch keys of %s: %w", k.issuer, err)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch keys of %s: %w", k.issuer, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch keys of %s: %w", k.issuer, err)
	}
	set, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("read keys of %s: %w", k.issuer, err)
	}
	return set, nil
}

// parseKeys reads a JSON Web Key Set. Keys of kinds that we do not know, and those that
// are for something else than signatures, are left out.
func parseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("there are %d, more than %d", len(document.Keys), maxKeys)
	}
	var out []jose.JSONWebKey
	for _, one := range document.Keys {
		var key jose.JSONWebKey
		if err := json.Unmarshal(one, &key); err != nil || !key.Valid() || !key.IsPublic() {
			continue
		}
		if key.Use == "" || key.Use == "sig" {
			out = append(out, key)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is none that signatures could be checked with")
	}
	return out, nil
}

// signature checks one token's, as a gooidc.KeySet.
type signature struct {
	keys *keys
	kind string // what the header calls the token
	away error  // why the provider's keys are not known
}

// VerifySignature implements gooidc.KeySet.
func (s *signature) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	var allowed []jose.SignatureAlgorithm
	for _, a := range algorithms() {
		allowed = append(allowed, jose.SignatureAlgorithm(a))
	}
	signed, err := jose.ParseSignedCompact(token, allowed)
	if err != nil {
		return nil, err
	}
	header := signed.Signatures[0].Protected
	s.kind, _ = header.ExtraHeaders[jose.HeaderType].(string)

	set, old := s.keys.known()
	payload, found := verify(signed, header.KeyID, set)
	switch {
	case payload != nil && old:
		s.keys.fetch() // for the next one
		return payload, nil
	case payload != nil:
		return payload, nil
	case found && !old:
		return nil, errors.New("the signature is wrong")
	}
	if err := s.keys.renew(ctx); err != nil {
		s.away = err
		return nil, err
	}
	set, _ = s.keys.known()
	if payload, _ = verify(signed, header.KeyID, set); payload != nil {
		return payload, nil
	}
	return nil, errors.New("the signature is of no key of the provider's")
}

// verify returns what was signed with one of the keys, and whether one was meant.
func verify(signed *jose.JSONWebSignature, id string, set []jose.JSONWebKey) (payload []byte, found bool) {
	for _, key := range set {
		if id != "" && key.KeyID != id {
			continue
		}
		found = true
		if payload, err := signed.Verify(key); err == nil {
			return payload, true
		}
	}
	return nil, found
}
