package token

import (
	"crypto/rsa"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxBoundLife is how long a bound token may be valid.
const MaxBoundLife = 5 * time.Minute

// Request is what a bound token has to be about.
type Request struct {
	Method string
	Target string // api.RequestTarget of its path and query
}

// isPart reports whether this is the signature of a form, which goes with a token and
// is none: as it says nothing of method and path, it would be good for any.
func (c Claims) isPart() bool {
	_, ok := c.all["content_sha256"]
	return ok
}

// isBound reports whether a token says which request it is for.
func (c Claims) isBound() bool {
	for _, name := range []string{"htm", "htu"} {
		if _, ok := c.all[name]; ok {
			return true
		}
	}
	return false
}

// checkBound checks that a token is for this request of this session, and is
// complete: who could leave a claim out could choose what it is for.
func (c Claims) checkBound(req Request, session string) error {
	issued, err := c.all.GetIssuedAt()
	if err != nil || issued == nil {
		return invalid("iat is missing")
	}
	until, err := c.all.GetExpirationTime()
	if err != nil || until == nil {
		return invalid("exp is missing")
	}
	switch {
	case until.Sub(issued.Time) > MaxBoundLife:
		return invalid("token is valid for too long")
	case session == "" || c.text("sid") != session:
		return invalid("token is for another session")
	case c.text("jti") == "":
		return invalid("jti is missing")
	case c.text("htm") != req.Method:
		return invalid("token is for another method")
	case c.text("htu") != req.Target:
		return invalid("token is for another path")
	}
	return nil
}

// Content is what the signature in a form with a file is about.
type Content struct {
	Path, Mode string // as the form has them; "" if it has none
	SHA256     string // of the file, in lowercase hex
}

// SignedForm reports whether a form must end with a signature of its content: its
// token is bound, and says nothing of the body.
func (c Claims) SignedForm() bool { return c.Bound && !c.HasBody }

// VerifyForm checks the signature of a form that came with the token of these
// claims: a JWT of the same session key, with the same jti.
func (g *Gate) VerifyForm(c Claims, signature string, content Content) error {
	all := jwt.MapClaims{}
	if _, err := g.parser.ParseWithClaims(signature, all, func(*jwt.Token) (any, error) { return c.key, nil }); err != nil {
		return invalid("signature of the form: " + err.Error())
	}
	signed := Claims{all: all}
	switch {
	case signed.text("jti") != c.text("jti"):
		return invalid("signature of the form is for another request")
	case signed.text("path") != content.Path || signed.text("mode") != content.Mode:
		return invalid("signature of the form is for another path or mode")
	case signed.text("content_sha256") != content.SHA256:
		return invalid("content_sha256 does not match the file")
	}
	return nil
}

// refuseOld refuses tokens that were made before the replays in memory begin, if
// tokens before that may have been used.
func (k known) refuseOld(c Claims) error {
	if k.since.IsZero() {
		return nil
	}
	issued, err := c.all.GetIssuedAt()
	if err != nil || issued == nil || issued.Unix() <= k.since.Unix() {
		return invalid("token was made before the agent began: sign the request again")
	}
	return nil
}

// signer is the key that a session's tokens are signed with.
func (k known) signer() *rsa.PublicKey {
	if k.key != nil {
		return k.key
	}
	return k.cfg.Router
}
