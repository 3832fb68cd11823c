package oidc

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claims are what a token says whose signature is right. Names are to the letter: to a
// Go struct "SUB" would be the subject too.
type claims map[string]json.RawMessage

// read decodes a claim, if there is one.
func read[T any](c claims, name string) (value T, err error) {
	text, ok := c[name]
	if !ok {
		return value, nil
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return value, fmt.Errorf("its %s is not of the right type", name)
	}
	return value, nil
}

// check returns the subject, or what is wrong. kind is the typ of the token's header.
func (c claims) check(kind, issuer, audience string, now time.Time) (subject string, err error) {
	iss, err1 := read[string](c, "iss")
	aud, err2 := read[jwt.ClaimStrings](c, "aud")
	subject, err3 := read[string](c, "sub")
	expires, err4 := read[*jwt.NumericDate](c, "exp")
	begins, err5 := read[*jwt.NumericDate](c, "nbf")
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	switch err := errors.Join(err1, err2, err3, err4, err5); {
	case err != nil:
		return "", err
	case iss != issuer:
		return "", errors.New("it is of another issuer")
	case audience != "" && !slices.Contains(aud, audience):
		return "", errors.New("it is for another audience")
	case expires == nil || !now.Before(expires.Add(leeway)):
		return "", errors.New("it has expired, or never would")
	case begins != nil && now.Before(begins.Add(-leeway)):
		return "", errors.New("it is not valid yet")
	case subject == "" || len(subject) > maxSubject || strings.ContainsFunc(subject, odd):
		return "", errors.New("it has no subject that a caller could be called by")
	}
	return subject, c.checkKind(kind)
}

// checkKind wants an access token, for whoever shows it.
func (c claims) checkKind(kind string) error {
	if !slices.Contains([]string{"", "jwt", "at+jwt", "application/at+jwt"}, strings.ToLower(kind)) {
		return fmt.Errorf("it is of type %.40q", kind)
	}
	// That is how Keycloak tells its tokens apart.
	if typ, err := read[string](c, "typ"); err != nil || typ != "" && !strings.EqualFold(typ, "Bearer") {
		return fmt.Errorf("it is of type %.40q", typ)
	}
	for name, what := range map[string]string{
		"at_hash": "an ID token", "c_hash": "an ID token", "events": "about an event", "cnf": "bound to a key",
	} {
		if _, there := c[name]; there {
			return fmt.Errorf("it is %s", what)
		}
	}
	return nil
}

// roles are those that the claim at a path lists: one that is called like the whole
// path or, without, the value at the end of it. It is a list, or one role. Of the claim
// scope it is words, as OAuth has it.
func (c claims) roles(path string) []string {
	text, found := c[path]
	if !found {
		at, names := c, strings.Split(path, ".")
		for _, name := range names[:len(names)-1] {
			var inner claims
			if err := json.Unmarshal(at[name], &inner); err != nil {
				return nil
			}
			at = inner
		}
		if text, found = at[names[len(names)-1]]; !found {
			return nil
		}
	}
	var one string
	if json.Unmarshal(text, &one) == nil {
		if path == "scope" {
			return strings.Fields(one)
		}
		return []string{one}
	}
	var list []any
	if json.Unmarshal(text, &list) != nil {
		return nil
	}
	var out []string
	for _, v := range list {
		if role, ok := v.(string); ok {
			out = append(out, role)
		}
	}
	return out
}
