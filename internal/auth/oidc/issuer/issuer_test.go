package issuer_test

import (
	"testing"

	"github.com/volcano-sh/agentcube/internal/auth/oidc/issuer"
)

func TestCheck(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://issuer.example":               true,
		"https://issuer.example:8443/realms/a": true,
		"https://issuer.example/":              true,
		"http://localhost:8080/realms/a":       true,
		"http://127.0.0.1:8080":                true,
		"http://[::1]":                         true,
		"http://issuer.example":                false,
		"http://10.0.0.1":                      false,
		"http://localhost.example":             false,
		"ftp://localhost":                      false,
		"https://me@issuer.example":            false,
		"https://issuer.example?a=b":           false,
		"https://issuer.example#a":             false,
		"https://":                             false,
		"issuer.example":                       false,
		"":                                     false,
		"https://issuer.example\x7f":           false,
	} {
		if err := issuer.Check(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}
