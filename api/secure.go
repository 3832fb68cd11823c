package api

import "strings"

// secureSuffix ends the names by which sessions are known in TLS. It is no domain
// of the DNS: the name is for the Router, which reads it in the ClientHello, and for
// the comparison with the certificate.
const secureSuffix = ".session.agentcube"

// SecureName is the server name (SNI) of a session's PicoD.
func SecureName(sessionID string) string { return sessionID + secureSuffix }

// SessionOfName is the session that a server name is of. Names of which no session can
// be, as they hold other bytes than names of hosts have, are of none.
func SessionOfName(name string) (sessionID string, ok bool) {
	id, ok := strings.CutSuffix(name, secureSuffix)
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if !ok || id == "" || strings.ContainsFunc(id, odd) {
		return "", false
	}
	return id, true
}

// Secure is how a session is reached with encryption from end to end: TLS 1.3 to
// the Router's address, which passes it on unread. Only the owner is shown it.
type Secure struct {
	// ServerName is what the ClientHello has to name.
	ServerName string `json:"serverName"`
	// Certificate is that of the session's PicoD, in PEM, and the only one to be
	// trusted. The client needs one of its own, of the session's key, self-signed.
	Certificate string `json:"certificate"`
}
