package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// testKey is made once: RSA keys take their time.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func TestLoadOrCreateRSAKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "router.pem")
	keys := make([]*rsa.PrivateKey, 4)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = auth.LoadOrCreateRSAKey(path); err != nil {
				t.Errorf("LoadOrCreateRSAKey: %v", err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if !key.Equal(keys[0]) || key.N.BitLen() != 2048 {
			t.Fatalf("two starts have different keys, or one of %d bits", key.N.BitLen())
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	again, err := auth.LoadOrCreateRSAKey(path)
	if err != nil || !again.Equal(keys[0]) {
		t.Errorf("read again: %v, same key: %v", err, err == nil)
	}
	onlyFile(t, path)
}

func TestLoadRSAKeyRefuses(t *testing.T) {
	pkcs8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkcs8(testKey())
	tests := map[string]struct{ content, problem string }{
		"empty":       {"", "one PEM block"},
		"not PEM":     {"secret", "one PEM block"},
		"two keys":    {good + good, "one PEM block"},
		"damaged":     {strings.Replace(good, good[60:80], strings.Repeat("A", 20), 1), "damaged"},
		"not RSA":     {pkcs8(ec), "not an RSA key"},
		"a short one": {short1024, "1024 bits"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := auth.LoadOrCreateRSAKey(path)
			var refused *auth.FileError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("got %v, want a *FileError about %q", err, test.problem)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != test.content {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestParseSessionPublicKey(t *testing.T) {
	want, err := auth.PublicKeyPEM(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b64 := range map[string]string{
		"unpadded, as the SDK sends it": base64.RawStdEncoding.EncodeToString([]byte(want)),
		"padded":                        base64.StdEncoding.EncodeToString([]byte(want)),
		"no final newline":              base64.RawStdEncoding.EncodeToString([]byte(strings.TrimSpace(want))),
		"Windows line ends":             base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(want, "\n", "\r\n"))),
	} {
		t.Run(name, func(t *testing.T) {
			text, key, err := auth.ParseSessionPublicKey(b64)
			if err != nil || text != want || !key.Equal(&testKey().PublicKey) {
				t.Errorf("got %v, PEM %q, want %q", err, text, want)
			}
		})
	}
}

func TestParseSessionPublicKeyRefuses(t *testing.T) {
	good, err := auth.PublicKeyPEM(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	public := func(key any) string {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return encode(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	modulus := func(bits int) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return n.Add(n, big.NewInt(1))
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testKey())})
	tests := map[string]string{
		"empty":                  "",
		"not base64":             "!!!",
		"URL alphabet":           strings.NewReplacer("+", "-", "/", "_").Replace(encode(good + "\xfb\xff\xfe")),
		"line breaks":            encode(good)[:64] + "\n" + encode(good)[64:],
		"PEM without base64":     good,
		"too much padding":       encode(good) + "==",
		"not PEM":                encode("hello"),
		"too long":               encode(strings.Repeat(good, 30)),
		"two keys":               encode(good + good),
		"a damaged key before":   encode("-----BEGIN PUBLIC KEY-----0\n" + good),
		"private key":            encode(string(private)),
		"PKCS#1 public key":      encode(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&testKey().PublicKey)}))),
		"elliptic curve":         public(&ec.PublicKey),
		"1024 bits":              public(&rsa.PublicKey{N: modulus(1024), E: 65537}),
		"2047 bits":              public(&rsa.PublicKey{N: modulus(2047), E: 65537}),
		"16384 bits":             public(&rsa.PublicKey{N: modulus(16384), E: 65537}),
		"exponent 1":             public(&rsa.PublicKey{N: modulus(2048), E: 1}),
		"exponent 3":             public(&rsa.PublicKey{N: modulus(2048), E: 3}),
		"even exponent":          public(&rsa.PublicKey{N: modulus(2048), E: 65538}),
		"even modulus":           public(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}),
		"something after":        encode(good + "x"),
		"damaged":                encode(strings.Replace(good, good[60:80], strings.Repeat("A", 20), 1)),
		"certificate, not a key": encode(strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE")),
	}
	for name, b64 := range tests {
		t.Run(name, func(t *testing.T) {
			text, key, err := auth.ParseSessionPublicKey(b64)
			if !errors.Is(err, auth.ErrInvalidKey) || text != "" || key != nil {
				t.Errorf("got %q, %v, want ErrInvalidKey", text, err)
			}
		})
	}
}

func FuzzParseSessionPublicKey(f *testing.F) {
	good, err := auth.PublicKeyPEM(&testKey().PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(base64.RawStdEncoding.EncodeToString([]byte(good)))
	f.Add("")
	f.Fuzz(func(t *testing.T, b64 string) {
		text, key, err := auth.ParseSessionPublicKey(b64)
		if err != nil {
			return
		}
		// What is accepted reads the same the second time.
		again, err := auth.ParsePublicKeyPEM(text)
		if err != nil || !again.Equal(key) || key.N.BitLen() < auth.MinRSABits {
			t.Errorf("accepted a key that does not hold: %v", err)
		}
	})
}

// short1024 is an RSA-1024 key, which Go would not make; it opens nothing.
const short1024 = `-----BEGIN PRIVATE KEY-----
MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBANl+grQ+n5l8os3n
aMu6y8wLtfc0YX7+Xklqamt4BrrRWARBQsdH0RUBPbi+lYfME2+lGa0JgTguph9o
KKYpBeKW0eOR7bgkhzEJm2hO2f/+PaN1u4DiAMAbGRcRu+6rOQQSZdCP2rvmFXoI
r1YtSquUD8D6xgIHwKwDcKmuA8MRAgMBAAECgYAscKQmTjFwPD5L0j/geO+RZscs
lsBhIXqEh8Ds6p59Z68TV35cl7kKELHa4N5O3A0Qn+yKJcoIf8ej3TWJFhLEZDgO
CJs40Z47Zzg/YtuJoq68DbhWaubUDaHXeKeLEAozZXdAMYQYPJuCrkQwYYq61cD5
iUGDrPOWrmH0YyaejQJBAPk7QF5MX/k8G22+U6maq6S6KHcjrvEB8d0jQocdy3Zs
O1QJw4y2Hjlxj3n5XSwEktq9Xn87asLd7DEARAcJWCMCQQDfZpwnY+mPMw20arp3
k9taGWJmpCEGcLUc8llSJReSX8m5lkUC6HpBdE8BDdLQT+9OepBSTenxTL4j56fC
B3E7AkEAmKYdyqPktHaIJjNIcrz1HDOYzT/hymNyjAsomDE7iRDJVbOVPf3djTls
szx0QJ2chLUvx6XQwgHCxFBxWg3zGQJBAIUkr35ecq2w3MMhNN7dlUbeiCHqQfCH
rbmByrBFgQXw5tYf9CNmkK5/9jIHnhQe/94C+A7Fdt8kQNI/V2ExdE8CQQDMsE42
mp6TY48fGakLroYY3upIZn5gs0fTHGFWeVqScENyA9eCQ/S6pNX2xtJKeJeu9Hxx
xAIQKiZs+JYdP0cF
-----END PRIVATE KEY-----
`

// TestReadRSAKey: keys that others have put there, as Kubernetes does from secrets.
func TestReadRSAKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name, kind string, der []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(testKey())
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &testKey().PublicKey, testKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"PKCS#8":            file("8.pem", "PRIVATE KEY", pkcs8, 0o600),
		"PKCS#1":            file("1.pem", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKey()), 0o600),
		"read by a group":   file("g.pem", "PRIVATE KEY", pkcs8, 0o440),
		"through a symlink": filepath.Join(dir, "link.pem"),
	} {
		if name == "through a symlink" {
			if err := os.Symlink("8.pem", path); err != nil {
				t.Fatal(err)
			}
		}
		if key, err := auth.ReadRSAKey(path); err != nil || !key.Equal(testKey()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, path := range map[string]string{
		"read by all":       file("a.pem", "PRIVATE KEY", pkcs8, 0o444),
		"changed by others": file("w.pem", "PRIVATE KEY", pkcs8, 0o660),
		"no key":            file("c.pem", "CERTIFICATE", certificate, 0o600),
	} {
		if strings.Contains(name, "others") {
			if err := os.Chmod(path, 0o660); err != nil { // whatever the umask
				t.Fatal(err)
			}
		}
		if _, err := auth.ReadRSAKey(path); err == nil {
			t.Errorf("%s: is read", name)
		} else if _, ok := errors.AsType[*auth.FileError](err); !ok {
			t.Errorf("%s: %v, want a *FileError", name, err)
		}
	}
	if key, err := auth.ReadCertifiedKey(file("r.crt", "CERTIFICATE", certificate, 0o644)); err != nil || !key.Equal(&testKey().PublicKey) {
		t.Errorf("certified key: %v", err)
	}
	for name, path := range map[string]string{"no certificate": file("k.crt", "PRIVATE KEY", pkcs8, 0o600), "damaged": file("d.crt", "CERTIFICATE", certificate[:50], 0o600)} {
		if _, err := auth.ReadCertifiedKey(path); err == nil {
			t.Errorf("%s: is read", name)
		}
	}
}
