package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/trace/otlp/otlptest"
)

// scrape reads the metrics of a server, checks them with Prometheus's linter, and
// returns the value of each series.
func scrape(t *testing.T, addr string) map[string]string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %d %s, %v", resp.StatusCode, text, err)
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "agentcube_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	series := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if at := strings.LastIndex(line, " "); at > 0 && line[0] != '#' {
			series[line[:at]] = strings.TrimSpace(line[at+1:])
		}
	}
	return series
}

// TestMetrics: a server says in numbers what was done with it, and in no label by whom.
func TestMetrics(t *testing.T) {
	t.Parallel()
	at, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	srv := stoppedServer(t, "--metrics-listen", at)
	// Not the same sandboxes as others, or the pool would be for these too.
	srv.template(t, "pooled", "warmPoolSize: 1", strings.Replace(small, "256Mi", "288Mi", 1))
	srv.restart(t)
	srv.prepare(t, "small", "pooled")
	c, err := client.New(client.Config{BaseURL: srv.url, Token: srv.token, PlainText: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	pooled := create(t, c, client.CreateOptions{Template: "pooled"})
	s := create(t, c, client.CreateOptions{Template: "small", Managed: true})
	if got := output(t, s, "echo 12345"); got != "12345\n" {
		t.Fatalf("output %q", got)
	}
	pause(t, s)
	output(t, s, "true")
	forks, err := s.Fork(t.Context(), 1, client.ForkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	discard(t, forks[0])
	for i := range 200 { // odd ids and paths
		name := "odd-" + strconv.Itoa(i)
		request(t, "GET", srv.url+"/v1/sessions/"+name, map[string]string{"Authorization": "Bearer " + srv.token})
		request(t, "GET", srv.url+"/"+name, nil)
		request(t, "POST", srv.url+"/v1/namespaces/"+name+"/code-interpreters/"+name+"/invocations/"+name, map[string]string{api.HeaderSessionID: name})
	}
	// Through the encryption: what passes is counted when the connection has ended.
	encrypted := srv.client(t)
	e := create(t, encrypted, client.CreateOptions{Template: "small"})
	output(t, e, "true")
	encrypted.Close()
	for deadline := time.Now().Add(patience); scrape(t, at)["agentcube_router_tunnels"] != "0" && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	now := scrape(t, at) // again: one scrape does not read all of its series in one moment
	for series, want := range map[string]string{
		`agentcube_sessions{state="running"}`:                                                "3",
		`agentcube_sessions{state="paused"}`:                                                 "0",
		`agentcube_sessions_created_total{origin="template"}`:                                "3",
		`agentcube_sessions_created_total{origin="fork"}`:                                    "1",
		`agentcube_sessions_ended_total{fate="deleted"}`:                                     "1",
		`agentcube_session_pauses_total`:                                                     "1",
		`agentcube_session_resumes_total`:                                                    "1",
		`agentcube_sandbox_create_duration_seconds_count{outcome="ok",start="pool"}`:         "1",
		`agentcube_sandbox_create_duration_seconds_count{outcome="ok",start="snapshot"}`:     "2",
		`agentcube_sandbox_create_duration_seconds_count{outcome="ok",start="copy"}`:         "1",
		`agentcube_sandbox_operation_duration_seconds_count{operation="pause",outcome="ok"}`: "1",
		`agentcube_router_wake_duration_seconds_count{outcome="ok"}`:                         "1",
		`agentcube_router_requests_total{code="2xx",kind="code-interpreter",method="POST"}`:  "2",
		`agentcube_router_requests_total{code="4xx",kind="code-interpreter",method="POST"}`:  "200",
		`agentcube_request_errors_total{code="SESSION_NOT_FOUND",plane="manager"}`:           "200",
		`agentcube_request_errors_total{code="SESSION_NOT_FOUND",plane="router"}`:            "200",
		`agentcube_manager_requests_total{code="2xx",route="POST /v1/code-interpreter"}`:     "3",
		`agentcube_pool_sandboxes_wanted{template="default/pooled"}`:                         "1",
		`agentcube_router_tunnel_duration_seconds_count`:                                     "1",
	} {
		if now[series] != want {
			t.Errorf("%s is %q, want %s", series, now[series], want)
		}
	}
	for _, series := range []string{
		`agentcube_router_sent_bytes_total{via="tunnel"}`, `agentcube_router_received_bytes_total{via="request"}`,
		"agentcube_sandbox_memory_max_bytes", "process_resident_memory_bytes",
	} {
		if n, err := strconv.ParseFloat(now[series], 64); err != nil || n <= 0 {
			t.Errorf("%s is %q", series, now[series])
		}
	}
	for series := range now {
		for _, ours := range []string{"odd-", s.ID, pooled.ID, srv.token} {
			if strings.Contains(series, ours) {
				t.Errorf("there is a series %s", series)
			}
		}
	}
	if n := len(now); n > 1500 {
		t.Errorf("there are %d series", n)
	}
	if status, _ := request(t, "GET", srv.url+"/metrics", nil); status == http.StatusOK {
		t.Error("metrics are served on the address of requests")
	}
}

// TestTraces: one trace goes from a client to the Workload Manager, to the Router, and
// into the sandbox, also from Python.
func TestTraces(t *testing.T) {
	t.Parallel()
	to := otlptest.New(t)
	srv := newServer(t, "--tracing", "--tracing-endpoint", to.URL)
	const id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	cfg := client.Config{BaseURL: srv.url, Token: srv.token, PlainText: true, Traceparent: func(context.Context) string { return "00-" + id + "-" + parent + "-01" }}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s := create(t, c, client.CreateOptions{})
	inside := regexp.MustCompile("^00-" + id + "-([0-9a-f]{16})-01\n").FindStringSubmatch(output(t, s, "echo $TRACEPARENT"))
	byPython := run(t, s, "python3", "-c", "import os; print(os.environ['TRACEPARENT'][:35])")
	if string(byPython.Stdout) != "00-"+id+"\n" {
		t.Errorf("Python has %q", byPython.Stdout)
	}
	// Where the Router cannot look, the client's own step reaches the sandbox.
	cfg.PlainText = false
	encrypting, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(encrypting.Close)
	if got := output(t, create(t, encrypting, client.CreateOptions{}), "echo $TRACEPARENT"); got != "00-"+id+"-"+parent+"-01\n" {
		t.Errorf("encrypted, the sandbox is told %q", got)
	}
	python := tracedPython(t, srv)
	if err := srv.stop(); err != nil {
		t.Fatal(err)
	}
	spans := to.Spans()
	find := func(of, name string) []string {
		var ids []string
		for _, s := range spans {
			if s.Trace == of && s.Name == name && s.Failure == "" {
				ids = append(ids, s.ID)
			}
		}
		return ids
	}
	for _, name := range []string{
		"manager POST /v1/code-interpreter", "sandbox create", "sandbox init", "store create",
		"router POST code-interpreter", "sandbox dial",
	} {
		for _, of := range []string{id, python} {
			if len(find(of, name)) == 0 {
				t.Errorf("the trace %s has no step %q", of, name)
			}
		}
	}
	if inside == nil || !slices.Contains(find(id, "router POST code-interpreter"), inside[1]) {
		t.Errorf("the sandbox was told %q, which is no step of the Router's", inside)
	}
	for _, secret := range []string{srv.token, "TRACEPARENT", "python3"} {
		if bytes.Contains(to.Raw(), []byte(secret)) {
			t.Errorf("spans have %q in them", secret)
		}
	}
}

// tracedPython runs a command within a span of a Python program's, and returns the id
// of its trace.
func tracedPython(t *testing.T, srv *server) string {
	t.Helper()
	const program = `
from opentelemetry.sdk.trace import TracerProvider
from agentcube import CodeInterpreterClient

with TracerProvider().get_tracer("test").start_as_current_span("agent") as span:
    with CodeInterpreterClient(encrypt=False) as client:
        print(format(span.get_span_context().trace_id, "032x"), client.execute_command("echo $TRACEPARENT"))
`
	cmd := exec.CommandContext(t.Context(), env.python, "-c", program)
	cmd.Env = srv.environ("WORKLOAD_MANAGER_URL="+srv.url, "ROUTER_URL="+srv.url, "AGENTCUBE_TOKEN="+srv.token)
	out, err := cmd.CombinedOutput()
	id, told, ok := strings.Cut(string(out), " ")
	if err != nil || !ok || !strings.HasPrefix(told, "00-"+id+"-") {
		t.Fatalf("the program in Python: %v\n%s", err, out)
	}
	return id
}
