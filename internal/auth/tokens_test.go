package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/auth"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// payload decodes the claims of a token whose signature is checked elsewhere.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestSignInit(t *testing.T) {
	body := []byte(`{"sessionId":"1"}`)
	init := auth.Init{SessionID: "1", SandboxID: "s-1", Mode: auth.InitKeyBound, PublicKey: "PEM ÿþ text\n", Body: body}
	token, err := auth.SignInit(testKey(), init, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := auth.VerifyRequest(&testKey().PublicKey, "Bearer "+token, now); err != nil {
		t.Error(err)
	}
	claims := payload(t, token)
	if jti, ok := claims["jti"].(string); !ok || len(jti) < 22 {
		t.Errorf("jti is %v, want at least 128 random bits", claims["jti"])
	}
	delete(claims, "jti")
	want := map[string]any{
		"iat": float64(now.Unix()), "exp": float64(now.Unix() + 300),
		"purpose": "sandbox_init", "sessionId": "1", "sandboxId": "s-1", "mode": "key-bound",
		"session_public_key": "UEVNIMO/w74gdGV4dAo",
		"body_sha256":        "a1c0842a31d134ce602da5633b92460c087c39c7b277e3db0b553980e627f0bc",
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

func TestSignRouter(t *testing.T) {
	first, err := auth.SignRouter(testKey(), "1", now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := auth.SignRouter(testKey(), "1", now)
	if err != nil || first == second {
		t.Errorf("two tokens of the same second are the same: %v", err)
	}
	if err := auth.VerifyRequest(&testKey().PublicKey, "Bearer "+first, now); err != nil {
		t.Error(err)
	}
	claims := payload(t, first)
	delete(claims, "jti")
	want := map[string]any{
		"iss": "agentcube-router", "iat": float64(now.Unix()), "exp": float64(now.Unix() + 300), "session_id": "1",
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

func TestVerifyRequest(t *testing.T) {
	const (
		missing = "Missing Authorization header"
		format  = "Invalid Authorization header format"
		invalid = "Invalid token"
	)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := auth.PublicKeyPEM(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + token
	}
	rs256 := func(claims jwt.MapClaims) string { return sign(jwt.SigningMethodRS256, testKey(), claims) }
	sdk := jwt.MapClaims{"iss": "sdk-client", "iat": in(0), "exp": in(5 * time.Minute)}
	good := rs256(sdk)
	tests := []struct {
		name, header, want string
	}{
		{"as the SDK sends it", good, ""},
		{"RS384", sign(jwt.SigningMethodRS384, testKey(), sdk), ""},
		{"RS512", sign(jwt.SigningMethodRS512, testKey(), sdk), ""},
		{"exp alone", rs256(jwt.MapClaims{"exp": in(time.Minute)}), ""},
		{"exp in six hours", rs256(jwt.MapClaims{"exp": in(6 * time.Hour)}), ""},
		{"odd claims that nobody looks at", rs256(jwt.MapClaims{"exp": in(time.Minute), "aud": 1, "iss": []int{2}, "sub": nil}), ""},
		{"fractions of a second", rs256(jwt.MapClaims{"exp": float64(in(time.Minute)) + 0.5, "iat": float64(in(0)) + 0.25}), ""},
		{"expired within the leeway", rs256(jwt.MapClaims{"exp": in(-59 * time.Second)}), ""},
		{"iat ahead within the leeway", rs256(jwt.MapClaims{"exp": in(time.Hour), "iat": in(59 * time.Second)}), ""},
		{"nbf ahead within the leeway", rs256(jwt.MapClaims{"exp": in(time.Hour), "nbf": in(59 * time.Second)}), ""},

		{"no header", "", missing},
		{"token alone", strings.TrimPrefix(good, "Bearer "), format},
		{"scheme alone", "Bearer", format},
		{"scheme in lower case", "b" + good[1:], format},
		{"two spaces", "Bearer " + good[len("Bearer"):], format},
		{"space after", good + " ", format},
		{"other scheme", "Basic dXNlcjpwYXNz", format},

		{"scheme and a space", "Bearer ", invalid},
		{"not a token", "Bearer x", invalid},
		{"opaque local token", "Bearer ac_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", invalid},
		{"no exp", rs256(jwt.MapClaims{"iat": in(0)}), invalid},
		{"expired", rs256(jwt.MapClaims{"exp": in(-61 * time.Second)}), invalid},
		{"exp is a text", rs256(jwt.MapClaims{"exp": "tomorrow"}), invalid},
		{"iat too far ahead", rs256(jwt.MapClaims{"exp": in(time.Hour), "iat": in(61 * time.Second)}), invalid},
		{"nbf too far ahead", rs256(jwt.MapClaims{"exp": in(time.Hour), "nbf": in(61 * time.Second)}), invalid},
		{"another key", sign(jwt.SigningMethodRS256, stranger, sdk), invalid},
		{"unsigned", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, sdk), invalid},
		{"HMAC with the public key", sign(jwt.SigningMethodHS256, []byte(public), sdk), invalid},
		{"PS256 with the right key", sign(jwt.SigningMethodPS256, testKey(), sdk), invalid},
		{"ES256", sign(jwt.SigningMethodES256, ec, sdk), invalid},
		{"signature cut off", good[:len(good)-4], invalid},
		{"claims exchanged", exchange(good, rs256(jwt.MapClaims{"exp": in(time.Hour)})), invalid},
		{"far too long", rs256(jwt.MapClaims{"exp": in(time.Hour), "x": strings.Repeat("x", 20_000)}), invalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := auth.VerifyRequest(&testKey().PublicKey, test.header, now)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var refused *auth.RequestError
			if !errors.As(err, &refused) || refused.Text != test.want || refused.Detail == "" {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if test.want == invalid && !strings.HasPrefix(refused.Detail, "JWT verification failed") {
				t.Errorf("detail %q", refused.Detail)
			}
		})
	}
}

// exchange puts the claims of one token into another.
func exchange(token, other string) string {
	a, b := strings.Split(token, "."), strings.Split(other, ".")
	return a[0] + "." + b[1] + "." + a[2]
}

func BenchmarkVerifyRequest(b *testing.B) {
	token, err := auth.SignRouter(testKey(), "1", now)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := auth.VerifyRequest(&testKey().PublicKey, "Bearer "+token, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignRouter(b *testing.B) {
	for b.Loop() {
		if _, err := auth.SignRouter(testKey(), "1", now); err != nil {
			b.Fatal(err)
		}
	}
}
