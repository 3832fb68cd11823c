package audit

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// statementIssuer is the iss of statements.
const statementIssuer = "picod"

// Statement is what PicoD says of its session's record: a JSON Web Token, ES256, of
// the key in the session's certificate.
type Statement struct {
	Session string    `json:"sid"`
	Head    Head      `json:"head"`
	Time    time.Time `json:"time"`
	// Open is how many requests were under way, which the record does not have yet.
	Open int `json:"open,omitempty"`
	// Kept is the number of the oldest line that PicoD still has; older ones were
	// dropped to bound its memory. 0 when it has none.
	Kept uint64 `json:"kept,omitempty"`
}

// statementClaims is a Statement as the token has it.
type statementClaims struct {
	Statement
	Issuer string `json:"iss"`
}

func (statementClaims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (statementClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (statementClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c statementClaims) GetIssuer() (string, error)                 { return c.Issuer, nil }
func (statementClaims) GetSubject() (string, error)                  { return "", nil }
func (statementClaims) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// Sign returns the statement as a token.
func (s Statement) Sign(key *ecdsa.PrivateKey) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, statementClaims{s, statementIssuer}).SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign statement: %w", err)
	}
	return token, nil
}

// ParseStatement checks the signature of a token by the certificate, in PEM, of the
// session's PicoD, and that it is of that session.
func ParseStatement(token, certificate, session string) (Statement, error) {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return Statement{}, errors.New("check statement: there is no certificate in PEM")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Statement{}, fmt.Errorf("check statement: %w", err)
	}
	var claims statementClaims
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}), jwt.WithIssuer(statementIssuer))
	if _, err := parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return parsed.PublicKey, nil }); err != nil {
		return Statement{}, fmt.Errorf("check statement: %w", err)
	}
	if claims.Session != session {
		return Statement{}, errors.New("check statement: it is of another session")
	}
	return claims.Statement, nil
}

// Closing is the last line of a session's record as PicoD hands it out.
type Closing struct {
	Statement string `json:"statement"`
}

// Record is a session's own record, or the end of it, as PicoD hands it out.
type Record struct {
	// Before is the head that the first line follows.
	Before  Head
	Entries []Entry
	// Heads are those of the chain with each entry, in their order.
	Heads []Head
	// Statement is what PicoD has signed of the last line.
	Statement Statement
}

// ParseRecord reads and checks the record of a session: that its lines are a chain,
// and that the PicoD with this certificate, in PEM, has signed where it ends.
func ParseRecord(text []byte, certificate, session string) (*Record, error) {
	body, last, found := cutLast(text)
	var closing Closing
	if !found || json.Unmarshal(last, &closing) != nil || closing.Statement == "" {
		return nil, errors.New("read session record: it does not end with a statement")
	}
	statement, err := ParseStatement(closing.Statement, certificate, session)
	if err != nil {
		return nil, err
	}
	rec := &Record{Statement: statement, Before: statement.Head}
	r := NewReader(bytes.NewReader(body))
	if err := rec.begin(r); err != nil {
		return nil, err
	}
	head, err := Verify(r, rec.Before, func(l Line) error {
		var e Entry
		if err := json.Unmarshal(l.Text, &e); err != nil {
			return fmt.Errorf("read session record: line %d: %w", l.Seq, err)
		}
		rec.Entries, rec.Heads = append(rec.Entries, e), append(rec.Heads, l.Head)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read session record: %w", err)
	}
	if head != statement.Head {
		return nil, fmt.Errorf("read session record: it ends with line %d and not as PicoD has signed, with %d", head.Seq, statement.Head.Seq)
	}
	return rec, nil
}

// begin takes what the first line says that it follows.
func (rec *Record) begin(r *bufio.Reader) error {
	start, err := r.Peek(1)
	if errors.Is(err, io.EOF) && len(start) == 0 {
		return nil
	}
	text, _ := r.Peek(MaxLine)
	first, _, found := bytes.Cut(text, []byte("\n"))
	if !found {
		return fmt.Errorf("read session record: %w", ErrTorn)
	}
	line, err := ParseLine(first)
	if err != nil {
		return fmt.Errorf("read session record: %w", err)
	}
	rec.Before = Head{line.Seq - 1, line.Prev}
	if rec.Before.Seq == 0 {
		rec.Before = Head{}
	}
	return nil
}

// cutLast splits off the last line.
func cutLast(text []byte) (before, last []byte, found bool) {
	text, found = bytes.CutSuffix(text, []byte("\n"))
	i := bytes.LastIndexByte(text, '\n')
	return text[:i+1], text[i+1:], found
}
