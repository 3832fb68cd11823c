package security

const sampler = "internal/trace/otlp/sampler.go"

// telemetry is what clients cannot do to metrics and traces.
func telemetry() []Defence {
	inTracer := Test{In: "internal/trace/otlp", Name: "TestSampling"}
	inCLI := func(name string) Test { return Test{In: "internal/cli", Name: name} }
	return []Defence{
		{"sampling-asked-for", Client, "has all of its requests recorded, as it says that they are", sampler,
			`case parent.IsValid() && (!parent.IsRemote() || !parent.IsSampled()):`, `case parent.IsValid():`, inTracer},
		{"sampling-by-id", Client, "chooses ids of traces that are recorded", sampler,
			`mac := hmac.New(sha256.New, s.secret)`, `mac := hmac.New(sha256.New, nil)`, inTracer},
		{"traceparent-form", Client, "has what it likes passed on as a traceparent", "internal/trace/parent.go",
			`if !lowerHex(part.text) {`, `if false {`, Test{In: "internal/trace", Name: "TestParse"}},
		{"traceparent-once", Client, "sends two, of which two readers take one each", "internal/trace/parent.go",
			`if len(values) != 1 {`, `if len(values) == 0 {`, Test{In: "internal/trace", Name: "TestFrom"}},
		{"bounded-routes", Client, "makes a series of metrics with each request", "internal/metrics/http.go",
			"return \"other\"\n\t}\n\treturn r.Pattern", "return r.URL.Path\n\t}\n\treturn r.Pattern", inCLI("TestBoundedLabels")},
		{"bounded-methods", Client, "makes a series of metrics with each method", "internal/metrics/http.go",
			"return method\n\t}\n\treturn \"other\"", "return method\n\t}\n\treturn method", inCLI("TestBoundedLabels")},
		{"host-of-metrics", Page, "reads the metrics by a name of its own for this machine", "internal/cli/telemetry.go",
			`Hosts: httpserve.Hosts{Names: cfg.HostNames()}}.Wrap(mux)`, `Hosts: httpserve.Hosts{Names: append(cfg.HostNames(), "rebound.example")}}.Wrap(mux)`, inCLI("TestMetrics")},
		{"commands-not-traced", Neighbour, "reads tokens and paths in the traces", "internal/httpserve/traces.go",
			`span.Note("agentcube.request_id", RequestID(r.Context()))`, `span.Note("path", r.URL.Path)`, inCLI("TestTraces")},
	}
}
