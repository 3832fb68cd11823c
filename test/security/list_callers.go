package security

const (
	memory  = "internal/auth/kubeauth/memory.go"
	claims  = "internal/auth/oidc/claims.go"
	keys    = "internal/auth/oidc/keys.go"
	tlsConf = "internal/tlsfiles/config.go"
	peers   = "internal/tlsfiles/peer.go"
)

func inKubeauth(name string) Test { return Test{In: "internal/auth/kubeauth", Name: name} }
func inOIDC(name string) Test     { return Test{In: "internal/auth/oidc", Name: name} }
func inTLSFiles(name string) Test { return Test{In: "internal/tlsfiles", Name: name} }

// rights are what the cluster's Roles give.
func rights() []Defence {
	return []Defence{
		{"right-to-create", Neighbour, "makes sessions of a template that it has no right to", "internal/manager/plan.go",
			`if err := m.cfg.Authorizer.Authorize(ctx, owner, auth.VerbCreate, of); err != nil {`, `if err := m.cfg.Authorizer.Authorize(ctx, owner, auth.VerbCreate, of); err != nil && false {`, inManager("TestAuthorize")},
		{"right-to-create-from-checkpoint", Neighbour, "makes sessions of such a template by a checkpoint of before", "internal/manager/mold.go",
			`if err := m.cfg.Authorizer.Authorize(ctx, owner, auth.VerbCreate, of); err != nil {`, `if err := m.cfg.Authorizer.Authorize(ctx, owner, auth.VerbCreate, of); err != nil && false {`, inManager("TestAuthorize")},
		{"right-to-change", Neighbour, "wakes, pauses and copies a session that it has no right to use any more", "internal/manager/end.go",
			`err = m.cfg.Authorizer.Authorize(ctx, who, verb,`, `_ = m.cfg.Authorizer.Authorize(ctx, who, verb,`, inManager("TestAuthorize")},
		{"right-to-run", Neighbour, "runs code in a session that it has no right to use any more", "internal/router/router.go",
			"of := auth.TemplateRef{Kind: rec.Kind, Namespace: rec.Namespace, Name: rec.Name}\n\t\treturn rt.cfg.Authorizer.Authorize(r.Context(), who, auth.VerbUse, of)",
			"return nil", inRouter("TestAuthorize")},
		{"right-is-withdrawn", Neighbour, "goes on with a token or a right that the API server has said no to", memory,
			`m.yes.Remove(key)`, ``, inKubeauth("TestRemembersNo")},
		{"token-ends", Neighbour, "is remembered for longer than its token lasts", memory,
			`life = min(life, time.Until(a.until))`, `life = min(life, m.yesFor)`, inKubeauth("TestRemembersUntil")},
		{"account-name", Client, "is taken for a service account of this cluster by a name that is like one", "internal/auth/kubeauth/cluster.go",
			`ok = ok && len(validation.IsDNS1123Label(namespace)) == 0`, `ok = ok && namespace != ""`, inKubeauth("TestAccount")},
		{"api-server-bounds", Client, "has the API server asked without end", memory,
			"case m.turns <- struct{}{}:\n\t\t\tdefer func() { <-m.turns }()", "case make(chan struct{}, 1) <- struct{}{}:", inKubeauth("TestBounds")},
	}
}

// openID are what tokens of an OpenID provider have to say.
func openID() []Defence {
	return []Defence{
		{"oidc-audience", Client, "shows a token for another service", claims,
			`case audience != "" && !slices.Contains(aud, audience):`, `case audience != "" && aud == nil:`, inOIDC("TestTokens")},
		{"oidc-expired", Client, "shows a token that has expired", claims,
			`case expires == nil || !now.Before(expires.Add(leeway)):`, `case expires == nil:`, inOIDC("TestTokens")},
		{"oidc-expires", Client, "shows a token that never expires", claims,
			`case expires == nil || !now.Before(expires.Add(leeway)):`, `case expires != nil && !now.Before(expires.Add(leeway)):`, inOIDC("TestTokens")},
		{"oidc-id-token", Client, "shows the ID token that a user has given it", claims,
			`"at_hash": "an ID token", `, ``, inOIDC("TestTokens")},
		{"oidc-kind", Client, "shows a refresh token", claims,
			`err != nil || typ != "" && !strings.EqualFold(typ, "Bearer")`, `err != nil`, inOIDC("TestTokens")},
		{"oidc-bound", Client, "shows a token that is bound to a key which it does not have", claims,
			`, "cnf": "bound to a key",`, `,`, inOIDC("TestTokens")},
		{"oidc-subject", Client, "is called by a name that looks like another in a log", claims,
			` || strings.ContainsFunc(subject, odd)`, ` || odd(-1) && false`, inOIDC("TestTokens")},
		{"oidc-role", Client, "has no role that lets it in", "internal/auth/oidc/provider.go",
			`role != "" && !slices.Contains(roles, role) {`, `false {`, inOIDC("TestRoles")},
		{"oidc-invented-keys", Client, "has the provider asked for each key that it invents", keys,
			`soon := !k.tried.IsZero() && `, `soon := false && `, inOIDC("TestInventedKeys")},
		{"oidc-withdrawn-keys", Client, "signs with a key that the provider has withdrawn", keys,
			`case payload != nil && old:`, `case false:`, inOIDC("TestKeysChange").waiting()},
		{"oidc-keys-in-plain-text", Router, "gives keys of its own for the provider's", "internal/auth/oidc/client.go",
			`r.URL.Scheme != "https" && !b.plain || `, ``, inOIDC("TestHostileProvider")},
		{"oidc-large-answer", Client, "has the provider's answer fill the memory", "internal/auth/oidc/client.go",
			`resp.Body = http.MaxBytesReader(nil, resp.Body, maxDocument)`, ``, inOIDC("TestHostileProvider")},
	}
}

// certificates say who is at the other end of TLS.
func certificates() []Defence {
	return []Defence{
		{"tls-client-is-named", Client, "connects with a certificate of the same authority", tlsConf,
			`return oneOf(f.cfg.Peers, s.PeerCertificates[0]) }`, `_ = oneOf(f.cfg.Peers, s.PeerCertificates[0]); return nil }`, inTLSFiles("TestServer")},
		{"tls-one-identity", Client, "connects with a certificate of several identities", peers,
			`if len(cert.URIs) != 1 || `, `if len(cert.URIs) == 0 || `, inTLSFiles("TestServer")},
		{"tls-not-an-authority", Client, "connects with the certificate of an authority", peers,
			`cert.IsCA || `, ``, inTLSFiles("TestServer")},
		{"tls-not-resumed", Client, "resumes a connection of before its identity was taken from it", tlsConf,
			`, SessionTicketsDisabled: true}`, `}`, inTLSFiles("TestNotResumed")},
		{"tls-server-is-vouched-for", Router, "answers in the place of the Workload Manager", tlsConf,
			`if _, err := cert.Verify(opts); err != nil {`, `if _, err := cert.Verify(opts); err != nil && false {`, inTLSFiles("TestClient")},
		{"tls-server-is-named", Router, "answers in the place of the Workload Manager, with a certificate of its own", tlsConf,
			`return oneOf(f.cfg.Peers, cert)`, `return nil`, inTLSFiles("TestClient")},
		{"tls-host-is-named", Router, "answers in the place of a host, with a certificate of its own", tlsConf,
			`if err := cert.VerifyHostname(s.ServerName); err != nil {`, `if err := cert.VerifyHostname(s.ServerName); err != nil && false {`, inTLSFiles("TestClient")},
		{"tls-files-version", Router, "has an older version of TLS spoken", tlsConf,
			`MinVersion: tls.VersionTLS13, NextProtos`, `NextProtos`, inTLSFiles("TestVersions")},
		{"tls-authority-withdrawn", Client, "connects with a certificate of an authority that was replaced", "internal/tlsfiles/files.go",
			`f.current = m
		f.log.Info(`, `f.log.Info(`, inTLSFiles("TestAuthorityExchanged").waiting()},
		{"tls-no-plain-text", Client, "has a token sent in plain text", "internal/httpserve/sniff.go",
			`case encrypted != nil:`, `case false:`, Test{In: "internal/httpserve", Name: "TestTLS"}},
	}
}
