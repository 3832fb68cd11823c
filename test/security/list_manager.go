package security

const (
	agreement = "internal/auth/agreement.go"
	issued    = "internal/auth/issued.go"
)

func inManager(name string) Test { return Test{In: "internal/manager", Name: name} }
func inAuth(name string) Test    { return Test{In: "internal/auth", Name: name} }

// owners keep what one owner has from the others.
func owners() []Defence {
	return []Defence{
		{"session-owner", Neighbour, "sees and ends another's session", "internal/manager/end.go",
			`(err == nil && !who.Sees(rec.Owner))`, `false`, inAPI("TestNoScopesReachMore")},
		{"session-administrator", Neighbour, "pauses and copies another's session, being an administrator", "internal/manager/end.go",
			`if err == nil && !who.Owns(rec.Owner) {`, `if false {`, inAPI("TestNoScopesReachMore")},
		{"checkpoint-owner", Neighbour, "removes another's checkpoint", "internal/manager/checkpoint.go",
			`if !checkpointName.MatchString(name) || !who.Sees(owner) {`, `if !checkpointName.MatchString(name) {`, inManager("TestOthersCheckpoints")},
		{"list-owner", Neighbour, "lists everybody's sessions", "internal/manager/http.go",
			`return "", who.Need(auth.ScopeAdmin)`, `return "", nil`, inManager("TestContractAnswers")},
		{"template-hints", Neighbour, "learns the names of templates that it may not use", "internal/manager/plan.go",
			`return !may(req.Kind, namespace, name)`, `return !may(req.Kind, namespace, name) && false`, inManager("TestOthersAreNotNamed")},
		{"scopes", Neighbour, "does what its token has no scope for", "internal/manager/http.go",
			`if err = who.Need(oneOf); err == nil && r.Method == http.MethodPost {`, `if r.Method == http.MethodPost {`, inAPI("TestNoScopesReachMore")},
		{"create-rate", Neighbour, "has sessions made without end", "internal/manager/rates.go",
			`if bucket.AllowN(now, n) {`, `if bucket.AllowN(now, n) || true {`, inManager("TestCreateRate")},
		{"strict-needs-key", Neighbour, "makes a session of a strict template that the Router can use", "internal/manager/plan.go",
			`case tmpl.Strict && publicKey == "":`, `case false:`, inManager("TestStrict")},
		{"strict-is-confirmed", Router, "relies on a PicoD that does not know what strict means", "internal/manager/agent.go",
			` && answer.Strict == p.record.Strict`, ``, inManager("TestStrictUnknown")},
		{"isolation", Inside, "runs with less isolation than its template demands", "internal/manager/plan.go",
			`if want >= 0 && slices.Index(isolations[:], have) >= want {`, `if want >= 0 && have != "" {`, inManager("TestMinIsolation")},
	}
}

// copies of a session are for the holder of its key to agree to.
func copies() []Defence {
	return []Defence{
		{"copy-needs-key", Router, "has a session copied whose key it does not have", "internal/manager/fork.go",
			"case err != nil:\n\t\treturn rec, api.Errorf(http.StatusForbidden", "case false:\n\t\treturn rec, api.Errorf(http.StatusForbidden", inManager("TestForkKeyBound")},
		{"copy-has-own-key", Router, "gives a copy the key of the original", "internal/manager/fork.go",
			`if key == "" || used[key] {`, `if key == "" {`, inManager("TestForkKeyBound")},
		{"agreement-session", Router, "uses an agreement for another session", agreement,
			`case claims.Session != want.SessionID:`, `case false:`, inAuth("TestAgreement")},
		{"agreement-request", Router, "makes a checkpoint of what was to be a fork", agreement,
			`case claims.Method != want.Method || claims.Path != want.Path:`, `case false:`, inAuth("TestAgreement")},
		{"agreement-body", Router, "puts keys of its own into a fork", agreement,
			`case subtle.ConstantTimeCompare([]byte(claims.Body), []byte(hex.EncodeToString(digest[:]))) != 1:`,
			`case subtle.ConstantTimeCompare([]byte(claims.Body), []byte(hex.EncodeToString(digest[:]))) > 1:`, inAuth("TestAgreement")},
		{"agreement-once", Router, "has a session copied a second time", agreement,
			`if _, seen := a.used[owner][id]; seen {`, `if _, seen := a.used[owner][id]; seen && false {`, inAuth("TestAgreementCountsOnce")},
		{"agreements-per-owner", Neighbour, "uses up the memory of agreements that others need", agreement,
			` || len(a.used[owner]) >= a.mostOwned }`, ` }`, inAuth("TestAgreementsPerOwner")},
	}
}

// tokens are for what they say, as long as they say.
func tokens() []Defence {
	return []Defence{
		{"token-revoked", Neighbour, "uses a token that was revoked", "internal/auth/tokenstore.go",
			`return r.RevokedAt.IsZero() && (`, `return (`, inAuth("TestRevokedAtOnce")},
		{"token-expires", Neighbour, "uses a token that has expired", "internal/auth/tokenstore.go",
			` && (r.ExpiresAt.IsZero() || now.Before(r.ExpiresAt))`, ` && !now.IsZero()`, inAuth("TestInvalidTokensAreAlike")},
		{"token-no-more-than-maker", Neighbour, "makes a token that may do more than its own", issued,
			`if beyond := scopes &^ by.Scopes; beyond != 0 {`, `if beyond := scopes &^ by.Scopes; beyond != 0 && false {`, inAuth("TestCreateTokenRefused")},
		{"token-reserved-name", Neighbour, "takes the name of the local token, and all that it owns", issued,
			`if reserved(req.Name) {`, `if false {`, inAuth("TestCreateTokenRefused")},
		{"token-name-for-ever", Neighbour, "takes the name of a token that was revoked, and inherits its sessions", "internal/session/sqlite/token.go",
			`insertToken = "INSERT INTO tokens (`, `insertToken = "INSERT OR REPLACE INTO tokens (`, Test{In: "internal/session/sqlite", Name: "TestTokens"}},
		{"token-not-logged", Neighbour, "reads tokens in the log", "internal/manager/http_tokens.go",
			`m.log.Info("token created", "token", rec.Name,`, `m.log.Info("token created", "token", token,`, inManager("TestTokensAreNowhere")},
		{"token-file-private", Neighbour, "reads the token of another user of the machine", "internal/auth/file.go",
			`if mode := info.Mode().Perm(); mode&forbidden != 0 {`, `if mode := info.Mode().Perm(); mode&forbidden != 0 && false {`, inAuth("TestReadTokenFileRefuses")},
		{"local-token", Client, "guesses at the local token", "internal/auth/local.go",
			`if subtle.ConstantTimeCompare(got[:], l.digest[:]) != 1 {`, `if subtle.ConstantTimeCompare(got[:], l.digest[:]) > 1 {`, inAuth("TestLocal")},
	}
}
