// Package issuer says which URLs an OpenID provider can have, for its client and for
// the settings, which need nothing else of that.
package issuer

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
)

// ErrInvalid says that a URL cannot be that of a provider.
var ErrInvalid = errors.New("want an https URL without user, query and fragment; http for this machine alone")

// Check returns ErrInvalid unless a URL can be that of a provider: who can change what
// it says can make tokens, and so nobody in between may.
func Check(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(text, "?#") || !Safe(u) {
		return ErrInvalid
	}
	return nil
}

// Safe reports whether nobody can change what is fetched from a URL: it is https, or
// http and of this machine.
func Safe(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && addr.IsLoopback())
}
