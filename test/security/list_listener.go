package security

const (
	hosts       = "internal/httpserve/hosts.go"
	serving     = "internal/httpserve/server.go"
	connections = "internal/httpguard/connections.go"
	transfers   = "internal/httpguard/transfers.go"
)

func inServe(name string) Test { return Test{In: "internal/httpserve", Name: name} }
func inGuard(name string) Test { return Test{In: "internal/httpguard", Name: name} }

// browsers are made by pages to send requests, which they cannot hide.
func browsers() []Defence {
	return []Defence{
		{"host", Page, "gives this machine's address a name of its own", hosts,
			`if name := hostname(r.Host); !h.known(name) && !sentTo(r, name) {`, `if name := hostname(r.Host); !h.known(name) && !sentTo(r, name) && false {`, inServe("TestHosts")},
		{"host-of-target", Page, "puts another host into the header than into the target", hosts,
			`if name := hostname(r.Host); !h.known(name) && !sentTo(r, name) {`, `if name := hostname(r.Header.Get("Host")); name != "" && !h.known(name) && !sentTo(r, name) {`, inServe("TestAbsoluteForm")},
		{"origin", Page, "sends requests to localhost", hosts,
			`if !sameOrigin(origin, r) {`, `if !sameOrigin(origin, r) && false {`, inServe("TestHosts")},
		{"fetch-site", Page, "has an answer loaded as an image", hosts,
			`switch r.Header.Get("Sec-Fetch-Site") {`, `switch "" {`, inServe("TestHosts")},
		{"host-in-up", Page, "finds a listener that checks nothing", "internal/cli/up.go",
			`Hosts: hosts}, plane).Wrap(both)`, `Hosts: httpserve.Hosts{Names: append(hosts.Names, "rebound.example")}}, plane).Wrap(both)`, Test{In: "internal/cli", Name: "TestUpChecksHosts"}},
		{"answers-not-rendered", Page, "has an answer rendered as a page of AgentCube's", "internal/httpserve/json.go",
			`h.Set("Content-Security-Policy", ContentPolicy)`, ``, inServe("TestSecurityHeaders")},
		{"answers-not-kept", Page, "finds answers in the browser's cache", "internal/httpserve/json.go",
			`h.Set("Cache-Control", "no-store")`, ``, inServe("TestSecurityHeaders")},
	}
}

// bounds are what any client can hold.
func bounds() []Defence {
	return []Defence{
		{"ambiguous-requests", Client, "smuggles a request behind another one", transfers,
			`return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)`, `return false`, inServe("TestHostileRequests")},
		{"slow-header", Client, "takes hours for the header of a request", serving,
			`ReadHeaderTimeout: timeout,`, `ReadHeaderTimeout: timeout + time.Hour,`, inServe("TestSlowHeaders").waiting()},
		{"slow-body", Client, "takes hours for the body of a request", "internal/httpguard/body.go",
			`_ = b.control.SetReadDeadline(b.meter.deadline(start, 0)) `, `_ = start.IsZero() `, inGuard("TestSlowBody").waiting()},
		{"slow-reader", Client, "takes hours for an answer", transfers,
			`_ = w.control.SetWriteDeadline(w.meter.deadline(start, n)) `, `_ = n `, inGuard("TestSlowReader").waiting()},
		{"connections", Client, "opens connections without end", connections,
			`if c.count >= c.most {`, `if false {`, inGuard("TestNoRoom").waiting()},
		{"connections-without-request", Client, "keeps others out with connections on which nothing happens", connections,
			`if now.Sub(oldest.since) < c.patience {`, `if true {`, inGuard("TestIdleMakeRoom")},
		{"requests-on-connections", Client, "has a thousand requests on each connection", connections,
			`if on.gone || c.requests >= c.most {`, `if on.gone {`, inGuard("TestRequestsInAll").waiting()},
		{"connections-inside", Inside, "opens connections to PicoD without end", "internal/picod/server.go",
			`l = limit.Listener(l)`, `_ = limit`, inPicod("TestBusyConnectionsStay")},
		{"http2-streams", Client, "opens streams without end on one connection", serving,
			`MaxConcurrentStreams:          100,`, `MaxConcurrentStreams:          10000,`, inServe("TestHTTP2Bounds")},
		{"one-json-value", Client, "sends two values, of which two readers take one each", "internal/httpserve/json.go",
			`if _, extra := dec.Token(); extra != io.EOF {`, `if _, extra := dec.Token(); extra != io.EOF && false {`, inServe("TestReadJSON")},
		{"causes-not-told", Client, "reads what broke in the answer", "internal/httpserve/errors.go",
			"return api.Errorf(http.StatusInternalServerError, api.CodeInternal, \"internal server error\").WithCause(err)\n}\n\n// away",
			"return api.Errorf(http.StatusInternalServerError, api.CodeInternal, \"%v\", err).WithCause(err)\n}\n\n// away", inServe("TestErrorsBecomeAnswers")},
	}
}
