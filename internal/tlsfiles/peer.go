package tlsfiles

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const spiffeScheme = "spiffe://"

// maxPeer is the longest SPIFFE ID that there may be, in bytes.
const maxPeer = 2048

// Peer is who may be at the other end of a connection: a SPIFFE ID such as
// spiffe://cluster.local/ns/agentcube/sa/router, or the name of a host.
type Peer string

// ParsePeer reads a Peer. The error says what it would have to be.
func ParsePeer(text string) (Peer, error) {
	valid := validHost
	if strings.HasPrefix(text, spiffeScheme) {
		valid = validSPIFFE
	}
	if !valid(text) {
		return "", fmt.Errorf("%q is neither a SPIFFE ID, such as spiffe://cluster.local/ns/agentcube/sa/router, nor the name of a host", text)
	}
	return Peer(text), nil
}

// only reports whether all bytes of text are letters, digits or among more.
func only(text, more string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		alnum := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !alnum && !strings.ContainsRune(more, r)
	})
}

func validSPIFFE(text string) bool {
	domain, path, ok := strings.Cut(strings.TrimPrefix(text, spiffeScheme), "/")
	if !ok || len(text) > maxPeer || !only(domain, "._-") || domain != strings.ToLower(domain) {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if !only(segment, "._-") || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func validHost(text string) bool {
	if len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if len(label) > 63 || !only(label, "-_") {
			return false
		}
	}
	return true
}

// check returns nil when a certificate, which an authority vouches for, is the peer's.
func (p Peer) check(cert *x509.Certificate) error {
	if !strings.HasPrefix(string(p), spiffeScheme) {
		return cert.VerifyHostname(string(p))
	}
	// An identity is the only one of its certificate, which makes no others.
	if len(cert.URIs) != 1 || cert.IsCA || cert.URIs[0].String() != string(p) {
		return fmt.Errorf("it is of %s, not of %s", uris(cert.URIs), p)
	}
	return nil
}

func uris(all []*url.URL) string {
	if len(all) == 0 {
		return "nobody with a SPIFFE ID"
	}
	var texts []string
	for _, u := range all {
		texts = append(texts, u.String())
	}
	return strings.Join(texts, " and ")
}

// oneOf returns nil when a certificate is that of one of the peers.
func oneOf(peers []Peer, cert *x509.Certificate) error {
	var errs []error
	for _, p := range peers {
		err := p.check(cert)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("check certificate: %w", errors.Join(errs...))
}
