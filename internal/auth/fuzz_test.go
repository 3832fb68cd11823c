package auth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// signRaw signs claims that need not be claims.
func signRaw(t testing.TB, header, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, testKey(), crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// FuzzVerifyRequest: a header that nobody signed is refused in words that PicoD has.
func FuzzVerifyRequest(f *testing.F) {
	good := signRaw(f, `{"alg":"RS256","typ":"JWT"}`, `{"exp":1900000000}`)
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer " + good[:40], "bearer " + good, "Bearer a.b.c", "Basic eDp5",
		"Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjE5MDAwMDAwMDB9.", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		err := auth.VerifyRequest(&testKey().PublicKey, header, now)
		var refused *auth.RequestError
		if !errors.As(err, &refused) {
			t.Fatalf("%q: %v", header, err)
		}
		if refused.Text == "" || refused.Detail == "" || refused.Reason == "" {
			t.Errorf("%q: %+v", header, refused)
		}
	})
}

// FuzzVerifyClaims: whatever the claims, what is accepted has not expired.
func FuzzVerifyClaims(f *testing.F) {
	for _, claims := range []string{`{}`, `{"exp":1900000000}`, `{"exp":1e300}`, `{"exp":-1}`, `{"exp":"1900000000"}`, `{"exp":1900000000,"iat":1900000000}`, `[]`, `null`, `{"exp":null}`} {
		f.Add(`{"alg":"RS256"}`, claims)
	}
	f.Add(`{"alg":"none"}`, `{"exp":1900000000}`)
	f.Add(`{"alg":"HS256"}`, `{"exp":1900000000}`)
	f.Add(`{"alg":"RS256","kid":"../x","jku":"http://evil.example","crit":["x"]}`, `{"exp":1900000000}`)
	f.Fuzz(func(t *testing.T, header, claims string) {
		if err := auth.VerifyRequest(&testKey().PublicKey, "Bearer "+signRaw(t, header, claims), now); err != nil {
			return
		}
		var said struct {
			Alg string  `json:"alg"`
			Exp float64 `json:"exp"`
		}
		if json.Unmarshal([]byte(header), &said) != nil || said.Alg != "RS256" || json.Unmarshal([]byte(claims), &said) != nil || said.Exp < float64(now.Unix()-61) {
			t.Errorf("accepted %q with %q", header, claims)
		}
	})
}

// FuzzAgreement: whatever the claims, what is accepted is about this very request,
// and counts once.
func FuzzAgreement(f *testing.F) {
	want := auth.Agreement{Owner: "o", SessionID: "s", Method: "POST", Path: "/v1/sessions/s/fork", Body: []byte("{}")}
	digest := sha256.Sum256(want.Body)
	good, err := json.Marshal(jwt.MapClaims{
		"sid": "s", "htm": "POST", "htu": want.Path, "body_sha256": hex.EncodeToString(digest[:]), "jti": "a", "iat": now.Unix(), "exp": now.Unix() + 300,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good))
	for _, name := range []string{"sid", "htm", "htu", "jti", "iat", "exp", "body_sha256"} {
		f.Add(strings.Replace(string(good), `"`+name+`"`, `"x"`, 1))
	}
	f.Add(strings.Replace(string(good), `"jti"`, `"JTI"`, 1))
	f.Fuzz(func(t *testing.T, claims string) {
		agreements := auth.NewAgreements(nil)
		token := signRaw(t, `{"alg":"RS256"}`, claims)
		if err := agreements.Verify(t.Context(), &testKey().PublicKey, token, want, now); err != nil {
			if !errors.Is(err, auth.ErrNotAgreed) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if err := agreements.Verify(t.Context(), &testKey().PublicKey, token, want, now.Add(time.Second)); !errors.Is(err, auth.ErrNotAgreed) {
			t.Errorf("accepted twice: %s", claims)
		}
		for _, value := range []string{want.Path, hex.EncodeToString(digest[:])} {
			if !strings.Contains(strings.ReplaceAll(claims, `\/`, `/`), value) && !strings.Contains(claims, `\u`) {
				t.Errorf("accepted for another request: %s", claims)
			}
		}
		other := want
		other.SessionID = "t"
		if err := auth.NewAgreements(nil).Verify(t.Context(), &testKey().PublicKey, token, other, now); err == nil {
			t.Errorf("accepted for another session too: %s", claims)
		}
	})
}
