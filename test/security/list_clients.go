package security

const (
	goTLS  = "client/secure.go"
	pyTLS  = "sdk/python/src/agentcube/_secure.py"
	pyAuth = "sdk/python/src/agentcube/_auth.py"
)

func inClient(name string) Test { return Test{In: "client", Name: name} }
func inSDK(file, name string) Test {
	return Test{In: "sdk/python/tests/unit/" + file + ".py", Name: name}
}
func inSDKSecure(name string) Test   { return inSDK("test_secure", name) }
func inSDKBound(name string) Test    { return inSDK("test_bound", name) }
func inSDKKeys(name string) Test     { return inSDK("test_keys", name) }
func inSDKSettings(name string) Test { return inSDK("test_settings", name) }

// goClient is what the Go client, and so the command line, does by itself.
func goClient() []Defence {
	return []Defence{
		{"go-one-certificate", Router, "offers a certificate of its own", goTLS,
			`RootCAs:              roots,`, `InsecureSkipVerify:   true,`, inClient("TestHostileRouter")},
		{"go-no-downgrade", Router, "lets a client go on in plain text", goTLS,
			`if key == nil || info.Secure == nil || c.plain {`, `if key != nil || info.Secure == nil || c.plain {`, inClient("TestHostileRouter")},
		{"go-past-tls", Router, "has a client go on unencrypted because it has TLS of its own", goTLS,
			`if key == nil || info.Secure == nil || c.plain {`, `if key == nil || info.Secure == nil || c.plain || c.router.Scheme != "http" {`, inClient("TestHostileRouter")},
		{"go-certificate-is-needed", Router, "has a client go on in plain text with a certificate that cannot be read", goTLS,
			`return nil, errors.New("the session's certificate cannot be read")`, `return nil, nil`, inClient("TestUnreadableCertificate")},
		{"go-tls-version", Router, "talks a client into an older protocol", goTLS,
			`MinVersion: tls.VersionTLS13, ServerName`, `MinVersion: tls.VersionTLS12, ServerName`, inClient("TestHostileRouter")},
		{"go-redirects", Router, "redirects a request to another server", "client/client.go",
			`if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {`, `if false {`, inClient("TestRedirectToAnotherServerIsRefused")},
		{"go-local-token", Router, "is sent the key to this machine", "client/client.go",
			`case c.local != "" && isLoopback(u.Hostname()):`, `case c.local != "" && u != nil:`, inClient("TestLocalTokenStaysOnThisMachine")},
		{"go-signs-body", Router, "swaps the body of a request", "client/sign.go",
			`claims["body_sha256"] = hex.EncodeToString(sum[:])`, `claims["b"] = hex.EncodeToString(sum[:])`, inClient("TestKeyBoundSessionSignsEveryRequest")},
		{"go-signs-target", Router, "sends a request to another path", "client/sign.go",
			`"htu": api.RequestTarget(in.inside, in.query.Encode()),`, `"htu": api.RequestTarget(in.inside, ""),`, inClient("TestTargetIsSigned")},
	}
}

// pythonSDK is what the Python SDK does by itself.
func pythonSDK() []Defence {
	return []Defence{
		{"sdk-one-certificate", Router, "offers a certificate of its own", pyTLS,
			"    context.load_verify_locations(cadata=secure.certificate)\n",
			"    context.check_hostname = False\n    context.verify_mode = ssl.CERT_NONE\n", inSDKSecure("test_another_certificate_is_refused")},
		{"sdk-no-other-authority", Router, "offers a certificate that an authority has signed", pyTLS,
			"    context.load_verify_locations(cadata=secure.certificate)\n",
			"    context.load_verify_locations(cadata=secure.certificate)\n    context.load_default_certs()\n", inSDKSecure("test_no_authority_is_trusted")},
		{"sdk-name", Router, "offers the right certificate for another name", pyTLS,
			"    context.load_verify_locations(cadata=secure.certificate)\n",
			"    context.load_verify_locations(cadata=secure.certificate)\n    context.check_hostname = False\n", inSDKSecure("test_the_certificate_of_another_session_is_refused")},
		{"sdk-tls-version", Router, "talks a client into an older protocol", pyTLS,
			`ssl.TLSVersion.TLSv1_3`, `ssl.TLSVersion.TLSv1_2`, inSDKSecure("test_an_older_protocol_is_refused")},
		{"sdk-past-tls", Router, "has a client go on unencrypted because it has TLS of its own", "sdk/python/src/agentcube/_session.py",
			`if proxy_for(router) is None:`, `if router.scheme == "http" and proxy_for(router) is None:`, inSDKSecure("test_a_router_with_tls_of_its_own_is_passed")},
		{"sdk-no-downgrade", Router, "lets a client go on in plain text", "sdk/python/src/agentcube/_session.py",
			`if secure is None or self._key is None or not self.settings.encrypt:`, `if secure is not None or self._key is None:`, inSDKSecure("test_nothing_is_sent_in_plain_text")},
		{"sdk-signs-body", Router, "swaps the body of a request", pyAuth,
			"    if body_sha256 is not None:\n        claims[\"body_sha256\"] = body_sha256\n    return claims\n\n\ndef agreement_claims",
			"    return claims\n\n\ndef agreement_claims", inSDK("test_auth", "test_claims")},
		{"sdk-signs-target", Router, "sends a request to another path", pyAuth,
			`"htu": inside,`, `"htu": inside.partition("?")[0],`, inSDKBound("test_every_request_is_bound_to_itself")},
		{"sdk-one-name-each", Router, "sends a request again", pyAuth,
			`"jti": os.urandom(16).hex(),
        "sid"`, `"jti": f"{session_id}-{method}",
        "sid"`, inSDKBound("test_no_two_requests_have_the_same_name")},
		{"sdk-key-not-shown", Client, "reads a key in a log or a traceback", pyAuth,
			`return "<SessionKey>"`, `return f"<SessionKey {self.private_pem()}>"`, inSDKKeys("test_keys_are_not_shown")},
		{"sdk-key-not-copied", Client, "reads a key in what was pickled", pyAuth,
			`raise TypeError("a session key cannot be pickled")`, `return "SessionKey"`, inSDKKeys("test_keys_are_not_copied_by_accident")},
		{"sdk-key-not-quoted", Client, "reads a malformed key in an exception", pyAuth,
			`problem = "private_key is not the PEM text of a private key"`, `problem = f"private_key is not the PEM text of a private key: {pem!r}"`, inSDKKeys("test_a_malformed_key_is_not_quoted")},
		{"sdk-local-token", Router, "is sent the key to this machine", "sdk/python/src/agentcube/_tokens.py",
			"if token and (endpoint.is_loopback or _OF_CALLERS.fullmatch(token)):", "if token:", inSDKSettings("test_which_tokens_of_a_named_file_leave_this_machine")},
	}
}
