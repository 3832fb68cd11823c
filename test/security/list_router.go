package security

const (
	routing = "internal/router/router.go"
	proxy   = "internal/router/proxy.go"
	answers = "internal/router/answer.go"
	paths   = "internal/router/path.go"
	splices = "internal/router/splice.go"
	visits  = "internal/router/owners.go"
)

func inRouter(name string) Test { return Test{In: "internal/router", Name: name} }
func inAPI(name string) Test    { return Test{In: "api", Name: name} }

// forwarding is what an honest Router does about clients, and about the answers of
// sandboxes.
func forwarding() []Defence {
	return []Defence{
		{"router-owner", Neighbour, "uses another's managed session", routing,
			"case !who.Sees(rec.Owner):\n\t\t\treturn unknownSession(rec.ID)\n\t\tcase !who.Owns(rec.Owner):", "case false:", inAPI("TestNoScopesUseMore")},
		{"router-administrator", Neighbour, "uses another's managed session, being an administrator", routing,
			`case !who.Owns(rec.Owner):`, `case false:`, inAPI("TestNoScopesUseMore")},
		{"router-scope-use", Neighbour, "runs code with a token that may only create", routing,
			"w.Header().Set(api.HeaderSessionID, rec.ID)\n\t\tif err := who.Need(auth.ScopeUse); err != nil {", "w.Header().Set(api.HeaderSessionID, rec.ID)\n\t\tif false {\n\t\t\tvar err error", inAPI("TestNoScopesUseMore")},
		{"router-scope-create", Neighbour, "has sessions made with a token that may only use", routing,
			`if err := who.Need(auth.ScopeCreate); err != nil {`, `if err := who.Need(auth.ScopeCreate); err != nil && false {`, inAPI("TestNoScopesUseMore")},
		{"router-key", Client, "wakes a session that is bound to another's key", routing,
			`if refused := verify(t.keyOf(rec), r); refused != nil {`, `if refused := verify(t.keyOf(rec), r); refused != nil && false {`, inRouter("TestStrangersDoNotWake")},
		{"router-one-session", Client, "names two sessions, of which two readers take one each", routing,
			`if len(r.Header.Values(api.HeaderSessionID)) > 1 {`, `if false {`, inRouter("TestHeadersTwice")},
		{"router-keeps-tokens", Inside, "reads the token of whoever calls a server of its own", proxy,
			"\t\tp.Out.Header.Del(\"Authorization\")\n", "", inRouter("TestAuthorization")},
		{"router-token-once", Inside, "is given the same token for two requests", "internal/router/tokens.go",
			"\tts.next = \"\"\n", "", inRouter("TestTokensAreForOneRequest")},
		{"router-trailers", Client, "adds headers after the body that was judged", proxy,
			`p.Out.Trailer = nil `, ``, inRouter("TestHostileRequests")},
		{"router-dots", Client, "reaches another path than the one that was judged", paths,
			`inv.path = removeDots("/" + path)`, `inv.path = "/" + path`, inRouter("TestEntryPoints")},
		{"router-escapes", Client, "leads a path out of the files of the workspace", paths,
			`inv.escapes = strings.HasPrefix("/"+path, filesPath) && !strings.HasPrefix(inv.path, filesPath)`, `inv.escapes = false`, inRouter("TestFilesDoNotLeaveTheWorkspace")},
		{"router-answers", Inside, "sets headers that concern all that is at this host", answers,
			`for _, name := range notTheirs() {`, `for _, name := range notTheirs()[:0] {`, inRouter("TestSecurityHeaders")},
		{"router-agents-answers", Inside, "takes PicoD's place and sets cookies", answers,
			`for _, name := range notTheAgents() {`, `for _, name := range notTheAgents()[:0] {`, inRouter("TestSecurityHeaders")},
		{"router-own-headers", Inside, "has the headers of AgentCube forgotten by an interim answer", answers,
			`if status < http.StatusOK && status != http.StatusSwitchingProtocols {`, `if false {`, inRouter("TestHostileAnswers")},
		{"router-answer-header-bounded", Inside, "fills the Router's memory with the header of an answer", "internal/router/target.go",
			`MaxResponseHeaderBytes: 256 << 10,`, `MaxResponseHeaderBytes: 256 << 20,`, inRouter("TestAnswerHeadersAreBounded")},
		{"splice-key-bound", Neighbour, "reaches PicoD of a managed session past the Router's check", splices,
			`if rec.Auth != api.AuthClientKey || rec.Certificate == "" {`, `if false {`, inRouter("TestSplice")},
		{"splice-hello-bounded", Client, "fills the Router's memory with a greeting that does not end", splices,
			`left := maxHello - c.taken.Len()`, `left := maxHello<<10 - c.taken.Len()`, inRouter("TestSpliceBounds")},
		{"owner-requests", Neighbour, "has so many requests under way that nobody else gets one", visits,
			`if o.limit > 0 && len(o.byName[owner]) >= o.limit {`, `if false {`, inRouter("TestOwnersShare")},
		{"revoked-ends-requests", Neighbour, "goes on with a request whose token is revoked", visits,
			`v.cancel(errRevoked)`, `_ = v.cancel`, inRouter("TestRevokedEndsRequests").waiting()},
		{"revoked-while-looked-at", Neighbour, "has its token looked at just before it is revoked", visits,
			`if v.owners.revoked != revocations {`, `if false {`, inRouter("TestRevokedWhileLookedAt")},
	}
}
