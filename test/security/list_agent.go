package security

const (
	gate  = "internal/picod/token/gate.go"
	bound = "internal/picod/token/bound.go"
	lock  = "internal/picod/token/session.go"
	cert  = "internal/picod/token/certificate.go"
)

func inPicod(name string) Test { return Test{In: "internal/picod", Name: name} }
func inGate(name string) Test  { return Test{In: "internal/picod/token", Name: name} }

// requests are what PicoD demands of the signature of each request.
func requests() []Defence {
	return []Defence{
		{"signature", Router, "signs requests with a key of its own", gate,
			`if _, err := g.parser.ParseWithClaims(parts[1], all, func(*jwt.Token) (any, error) { return key, nil }); err != nil {`,
			`if _, _, err := g.parser.ParseUnverified(parts[1], all); err != nil {`, inPicod("TestTokens")},
		{"signature-algorithms", Router, "has a signature taken that was made in another way", gate,
			`jwt.WithValidMethods([]string{"RS256", "RS384", "RS512"}),`, ``, inPicod("TestTokens")},
		{"signature-ends", Router, "keeps a request for years", gate,
			`jwt.WithExpirationRequired(), jwt.WithIssuedAt(),`, `jwt.WithIssuedAt(),`, inPicod("TestTokens")},
		{"signature-begins", Router, "uses a request of the future", gate,
			`jwt.WithExpirationRequired(), jwt.WithIssuedAt(),`, `jwt.WithExpirationRequired(),`, inPicod("TestTokens")},
		{"one-authorization", Router, "sends two tokens, of which two readers take one each", "internal/picod/initialize.go",
			`return strings.Join(q.r.Header.Values("Authorization"), ", ")`, `return q.r.Header.Get("Authorization")`, inPicod("TestTokensTwice")},
		{"request-once", Router, "sends a request again", "internal/picod/token/replay.go",
			`if _, seen := r.until[id]; seen {`, `if _, seen := r.until[id]; seen && false {`, inPicod("TestBoundTokenOnce")},
		{"request-before-restart", Router, "sends a request again that an earlier PicoD has seen", gate,
			`if err := k.refuseOld(c); err != nil {`, `if err := k.refuseOld(c); err != nil && false {`, inPicod("TestBoundAfterRestart")},
		{"request-method", Router, "makes another method of a request", bound,
			`case c.text("htm") != req.Method:`, `case false:`, inPicod("TestBoundTokens")},
		{"request-path", Router, "sends a request to another path", bound,
			`case c.text("htu") != req.Target:`, `case false:`, inPicod("TestBoundPaths")},
		{"request-session", Router, "sends an old client's request to another session of the same key", gate,
			`if sid, ok := c.all["sid"]; ok && id != "" && sid != id {`, `if sid, ok := c.all["sid"]; ok && id != "" && sid != id && false {`, inPicod("TestInit")},
		{"request-names-session", Router, "sends a request that names no session to any", bound,
			`case session == "" || c.text("sid") != session:`, `case false:`, inPicod("TestBoundTokens")},
		{"request-has-name", Router, "sends a request without a name any number of times", bound,
			`case c.text("jti") == "":`, `case false:`, inPicod("TestBoundTokens")},
		{"request-life", Router, "keeps a request for an hour", bound,
			`case until.Sub(issued.Time) > MaxBoundLife:`, `case false:`, inPicod("TestBoundTokens")},
		{"request-body", Router, "swaps the body of a request", gate,
			`if c.HasBody && c.BodySHA256 != sum {`, `if c.HasBody && c.BodySHA256 != sum && false {`, inPicod("TestBoundTokens")},
		{"request-names-body", Router, "gives a request without a body one", gate,
			`if c.Bound && !c.HasBody {`, `if c.Bound && !c.HasBody && false {`, inPicod("TestBoundTokens")},
		{"strict", Router, "runs commands with a token of the old kind", gate,
			`} else if k.session != nil && k.session.Strict {`, `} else if k.session != nil && k.session.Strict && false {`, inPicod("TestStrict")},
		{"used-tokens-are-bounded", Inside, "fills PicoD's memory with names of tokens", "internal/picod/token/replay.go",
			"if len(r.until) >= r.max {\n", "if len(r.until) >= r.max && false {\n", inGate("TestUsedTokensAreBounded")},
	}
}

// forms are what PicoD demands of an upload, whose hash comes after it.
func forms() []Defence {
	return []Defence{
		{"form-content", Router, "swaps a file that is uploaded", bound,
			`case signed.text("content_sha256") != content.SHA256:`, `case false:`, inPicod("TestSignedForm")},
		{"form-path", Router, "has an upload written elsewhere, or made executable", bound,
			`case signed.text("path") != content.Path || signed.text("mode") != content.Mode:`, `case false:`, inPicod("TestSignedForm")},
		{"form-request", Router, "puts the signature of one form under another", bound,
			`case signed.text("jti") != c.text("jti"):`, `case false:`, inPicod("TestSignedForm")},
		{"form-signature", Router, "signs a form with a key of its own", bound,
			`if _, err := g.parser.ParseWithClaims(signature, all, func(*jwt.Token) (any, error) { return c.key, nil }); err != nil {`,
			`if _, _, err := g.parser.ParseUnverified(signature, all); err != nil {`, inPicod("TestSignedForm")},
		{"form-signature-is-no-token", Router, "runs commands with the signature of a form", gate,
			`if claims.isPart() {`, `if false {`, inPicod("TestSignedForm")},
	}
}

// hellos are what PicoD demands of a connection that it encrypts.
func hellos() []Defence {
	return []Defence{
		{"tls-peer", Router, "connects to a sandbox with a key of its own", cert,
			`if !ok || !key.Equal(peer) {`, `if !ok || peer == nil {`, inPicod("TestTLS")},
		{"tls-version", Router, "talks the two ends into an older protocol", cert,
			`MinVersion:   tls.VersionTLS13,`, `MinVersion:   tls.VersionTLS12,`, inPicod("TestTLSPeers")},
		{"tls-of-this-session", Router, "uses a connection of the session that the sandbox had before", "internal/picod/initialize.go",
			`if err := q.gate.CheckPeer(q.r.TLS); err != nil {`, `if err := q.gate.CheckPeer(q.r.TLS); err != nil && false {`, inPicod("TestTLSOfFormerSession")},
	}
}

// firstKey is why PicoD obeys one key.
func firstKey() []Defence {
	return []Defence{
		{"first-key-wins", Router, "hands PicoD another key at the same moment", lock,
			"if g.session != nil {\n\t\treturn ErrAlreadyInitialized", "if false {\n\t\treturn ErrAlreadyInitialized", inGate("TestFirstKeyWins")},
		{"one-key", Router, "hands PicoD another key later", lock,
			"if now.session != nil {\n\t\treturn nil, ErrAlreadyInitialized", "if false {\n\t\treturn nil, ErrAlreadyInitialized", inPicod("TestInit")},
		{"key-for-this-sandbox", Router, "hands over a key that was meant for another sandbox", lock,
			`if now.cfg.SandboxID != "" && claims.text("sandboxId") != now.cfg.SandboxID {`, `if false {`, inPicod("TestInitRefused")},
		{"key-for-this-copy", Router, "hands a copy the key that was on its way to the original", lock,
			`if o.forSandbox != g.cfg.SandboxID {`, `if false {`, inGate("TestOfferOfFormerSandbox")},
		{"init-body", Router, "gives a new session variables and files of its own", "internal/picod/initialize.go",
			`if !offer.Claims.HasBody || len(body) == 0 {`, `if len(body) == 0 {`, inPicod("TestInitGivesNothingUnsigned")},
		{"key-is-safe", Neighbour, "binds a session to a key that can be guessed", "internal/auth/pubkey/pubkey.go",
			`if key.E < minExponent || key.E%2 == 0 {`, `if key.E%2 == 0 {`, inPicod("TestInitRefused")},
		{"router-key-is-not-the-sessions", Router, "signs with its own key for a session of a client's", bound,
			"if k.key != nil {\n\t\treturn k.key\n\t}\n\treturn k.cfg.Router", "if k.cfg.Router != nil {\n\t\treturn k.cfg.Router\n\t}\n\treturn k.key", inPicod("TestBothKeys")},
		{"managed-session", Router, "has a request to one managed session carried to another", gate,
			`if routed && id != "" && c.text("session_id") != id {`, `if false && routed {`, inPicod("TestRoutedTokens")},
		{"copy-forgets-key", Router, "uses the key of the original in a copy", gate,
			"g.session, g.key, g.used, g.since, g.certificate = nil, nil, newReplays(maxTokens), time.Time{}, nil",
			"g.session, g.used, g.since, g.certificate = nil, newReplays(maxTokens), time.Time{}, nil", inGate("TestCopyForgetsKey")},
		{"identity-on-first-line", Inside, "attaches a line of its own and has PicoD forget its session", "internal/picod/host.go",
			`if line != h.base {`, `if false {`, inPicod("TestIdentityOnFirstLine")},
	}
}
