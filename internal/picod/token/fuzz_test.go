package token

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"hash"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var fuzzKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func publicPEM(t testing.TB, key *rsa.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// signed reports, by means of its own, whether a header is exactly a bearer token
// that was signed with RSA and the key.
func signed(key *rsa.PublicKey, header string) bool {
	token, ok := strings.CutPrefix(header, "Bearer ")
	parts := strings.Split(token, ".")
	if !ok || len(parts) != 3 {
		return false
	}
	var head struct {
		Alg string `json:"alg"`
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || json.Unmarshal(raw, &head) != nil {
		return false
	}
	h, ok := map[string]struct {
		kind crypto.Hash
		sum  hash.Hash
	}{"RS256": {crypto.SHA256, sha256.New()}, "RS384": {crypto.SHA384, sha512.New384()}, "RS512": {crypto.SHA512, sha512.New()}}[head.Alg]
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if !ok || err != nil {
		return false
	}
	h.sum.Write([]byte(parts[0] + "." + parts[1]))
	return rsa.VerifyPKCS1v15(key, h.kind, h.sum.Sum(nil), sig) == nil
}

// FuzzHeader: no header opens anything but the signature of the key. What is
// refused has one of the errors that there are words for.
func FuzzHeader(f *testing.F) {
	key := fuzzKey()
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodRS512, jwt.SigningMethodPS256} {
		token, err := jwt.NewWithClaims(method, jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}).SignedString(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("Bearer " + token)
		f.Add("Bearer  " + token)
		f.Add("Bearer " + token + " ")
		f.Add("bearer " + token)
		f.Add(token)
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"exp": 1 << 40}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Bearer " + none)
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		gate := New(Config{Router: &key.PublicKey})
		_, err := gate.Authorize(header, Request{Method: "POST", Target: "/api/execute"})
		if err == nil && !signed(&key.PublicKey, header) {
			t.Errorf("opened by %q", header)
		}
		if err != nil && !errors.Is(err, ErrMissingHeader) && !errors.Is(err, ErrMalformedHeader) && !errors.Is(err, ErrInvalidToken) {
			t.Errorf("refused with %v", err)
		}
	})
}

// FuzzClaims: of tokens that the key has signed, with whatever claims, those that
// are accepted are in time, for this session and this request, and count once.
func FuzzClaims(f *testing.F) {
	key := fuzzKey()
	now := time.Now()
	f.Add(`{"exp":`+jsonTime(now, 60)+`}`, false)
	f.Add(`{"exp":`+jsonTime(now, 60)+`,"jti":"a"}`, true)
	f.Add(`{"exp":`+jsonTime(now, 60)+`,"iat":`+jsonTime(now, 0)+`,"jti":"a","htm":"POST","htu":"/api/execute","sid":"s","body_sha256":"`+strings.Repeat("0", 64)+`"}`, true)
	f.Add(`{"exp":1e400,"iat":"x","nbf":[],"jti":7,"htm":null,"sid":{}}`, false)
	f.Add(`{"exp":99999999999,"session_id":"s","body_sha256":"x"}`, true)
	f.Add(`[]`, false)
	f.Fuzz(func(t *testing.T, claims string, strict bool) {
		gate := New(Config{})
		gate.session, gate.key = &Session{ID: "s", Mode: KeyBound, Strict: strict}, &key.PublicKey
		header := "Bearer " + signRaw(t, key, claims)
		req := Request{Method: "POST", Target: "/api/execute"}
		got, err := gate.Authorize(header, req)
		if err != nil {
			if !errors.Is(err, ErrInvalidToken) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		var said map[string]any
		if err := json.Unmarshal([]byte(claims), &said); err != nil {
			t.Fatalf("accepted what is not JSON: %q", claims)
		}
		if exp, ok := said["exp"].(float64); !ok || int64(exp) < now.Add(-Leeway).Unix()-1 {
			t.Errorf("accepted when it is over: %s", claims)
		}
		if sid, ok := said["sid"]; ok && sid != "s" {
			t.Errorf("accepted for another session: %s", claims)
		}
		_, method := said["htm"]
		_, target := said["htu"]
		if bound := method || target; got.Bound != bound || strict && !bound || bound && (said["htm"] != "POST" || said["htu"] != "/api/execute" || said["sid"] != "s") {
			t.Errorf("accepted for another request: %s", claims)
		}
		if _, once := said["jti"]; once {
			if _, err := gate.Authorize(header, req); !errors.Is(err, ErrInvalidToken) {
				t.Errorf("accepted twice: %s, %v", claims, err)
			}
		}
		if _, has := said["body_sha256"]; has != got.HasBody || has && got.CheckBody(strings.Repeat("1", 64)) == nil && said["body_sha256"] != strings.Repeat("1", 64) {
			t.Errorf("accepted with any body: %s", claims)
		}
	})
}

func jsonTime(now time.Time, seconds int64) string {
	text, err := json.Marshal(now.Unix() + seconds)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// signRaw signs claims that need not be claims.
func signRaw(t testing.TB, key *rsa.PrivateKey, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// FuzzParseKey: a key that is taken is one that signatures are safe with.
func FuzzParseKey(f *testing.F) {
	good := &fuzzKey().PublicKey
	f.Add([]byte(publicPEM(f, good)))
	f.Add([]byte(publicPEM(f, good) + publicPEM(f, good)))
	f.Add([]byte(publicPEM(f, &rsa.PublicKey{N: good.N, E: 3})))
	f.Add([]byte(publicPEM(f, &rsa.PublicKey{N: new(big.Int).Lsh(good.N, 8000), E: 65537})))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseKey(text)
		if err != nil {
			return
		}
		if bits := key.N.BitLen(); bits < 2048 || bits > 8192 || key.N.Bit(0) == 0 || key.E < 65537 || key.E%2 == 0 {
			t.Errorf("took a key of %d bits with exponent %d", bits, key.E)
		}
		if strings.Count(string(text), "-----BEGIN PUBLIC KEY-----") > 1 {
			t.Error("took one of two keys")
		}
	})
}
