package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/trace"
	"github.com/volcano-sh/agentcube/internal/trace/otlp/otlptest"
)

// TestMetrics: what has been done is what is counted, and nobody's.
func TestMetrics(t *testing.T) {
	p := tell(t, func(*config.Config, *manager.Config, *router.Config) {})
	ids := []string{p.create(""), p.create("")}
	p.put(ids[0], "")
	p.want("GET", files+"/"+file, ids[0], "", "")
	p.want("POST", "/v1/sessions/"+ids[0]+"/pause", "", "", "")
	p.want("GET", files+"/"+file, ids[0], "", "") // wakes it
	p.want("POST", "/v1/sessions/"+ids[0]+"/pause", "", "", "")
	p.want("POST", "/v1/sessions/"+ids[1]+"/fork", "", `{"count":2}`, "")
	p.want("DELETE", "/v1/sessions/"+ids[1], "", "", "")
	p.do("GET", "/v1/sessions/"+ids[1]+"x", "", "", "")
	// The answer is there a moment before its request is over.
	for end := time.Now().Add(30 * time.Second); p.scrape()[`agentcube_router_requests_in_flight`] != "0" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	now := p.scrape()
	for series, want := range map[string]string{
		`agentcube_build_info{go_version="` + runtime.Version() + `",version="1.2.3"}`:          "1",
		`agentcube_sessions{state="running"}`:                                                   "2",
		`agentcube_sessions{state="paused"}`:                                                    "1",
		`agentcube_sessions{state="pending"}`:                                                   "0",
		`agentcube_sandboxes`:                                                                   "2",
		`agentcube_sandbox_memory_promised_bytes`:                                               "2.147483648e+09",
		`agentcube_sandbox_memory_max_bytes`:                                                    "8.589934592e+09",
		`agentcube_sessions_created_total{origin="template"}`:                                   "2",
		`agentcube_sessions_created_total{origin="fork"}`:                                       "2",
		`agentcube_sessions_ended_total{fate="deleted"}`:                                        "1",
		`agentcube_session_pauses_total`:                                                        "2",
		`agentcube_session_resumes_total`:                                                       "1",
		`agentcube_pool_sandboxes_wanted{template="default/python"}`:                            "2",
		`agentcube_pool_sandboxes_ready{template="default/python"}`:                             "2",
		`agentcube_sandbox_create_duration_seconds_count{outcome="ok",start="pool"}`:            "2",
		`agentcube_sandbox_create_duration_seconds_count{outcome="ok",start="copy"}`:            "2",
		`agentcube_sandbox_operation_duration_seconds_count{operation="pause",outcome="ok"}`:    "2",
		`agentcube_sandbox_operation_duration_seconds_count{operation="resume",outcome="ok"}`:   "1",
		`agentcube_router_wake_duration_seconds_count{outcome="ok"}`:                            "1",
		`agentcube_router_requests_total{code="2xx",kind="code-interpreter",method="GET"}`:      "2",
		`agentcube_router_requests_total{code="2xx",kind="code-interpreter",method="POST"}`:     "1",
		`agentcube_router_requests_in_flight`:                                                   "0",
		`agentcube_manager_requests_total{code="2xx",route="POST /v1/code-interpreter"}`:        "2",
		`agentcube_manager_requests_total{code="2xx",route="POST /v1/sessions/{id}/pause"}`:     "2",
		`agentcube_request_errors_total{code="SESSION_NOT_FOUND",plane="manager"}`:              "1",
		`agentcube_store_operation_duration_seconds_count{operation="create",outcome="ok"}`:     "4",
		`agentcube_manager_request_duration_seconds_count{route="POST /v1/sessions/{id}/fork"}`: "1",
	} {
		if now[series] != want {
			t.Errorf("%s is %q, want %s", series, now[series], want)
		}
	}
	r := httptest.NewRequest("GET", p.telemetry.url(), nil)
	r.Host = "rebound.example"
	w := httptest.NewRecorder()
	if p.telemetry.web.Handler.ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("a web page gets %d", w.Code)
	}
	for _, positive := range []string{
		`agentcube_router_sent_bytes_total{via="request"}`, `agentcube_router_received_bytes_total{via="request"}`,
		`agentcube_router_dial_duration_seconds_count{outcome="ok"}`, "go_goroutines", "process_open_fds",
	} {
		if now[positive] == "" || now[positive] == "0" {
			t.Errorf("%s is %q", positive, now[positive])
		}
	}
}

// TestBoundedLabels: whatever clients send, there are no more series, and nothing of
// it is in any.
func TestBoundedLabels(t *testing.T) {
	p := tell(t, func(*config.Config, *manager.Config, *router.Config) {})
	odd := func(n int) {
		for i := range n {
			name := fmt.Sprintf("odd-%d-%d", n, i)
			for _, path := range []string{
				"/" + name, "/v1/" + name, "/v1/sessions/" + name, "/v1/namespaces/" + name + "/code-interpreters/x/invocations/" + name,
				"/v1/namespaces/default/" + name + "/x/invocations/", "/health/" + name, "/v1/namespaces/" + name,
				"/v1/namespaces/default/code-interpreters/" + name + "/invocations/",
			} {
				for _, method := range []string{"GET", "POST", "PUT", "HEAD", "ODD" + strings.ToUpper(strings.ReplaceAll(name, "-", ""))} {
					p.do(method, path, name, "", "")
				}
			}
		}
	}
	use := func() {
		id := p.create("")
		p.put(id, "")
		p.want("DELETE", "/v1/sessions/"+id, "", "", "")
	}
	odd(2)
	use()
	before := p.scrape()
	odd(40)
	for range 5 {
		use()
	}
	for series := range p.scrape() {
		if _, was := before[series]; !was {
			t.Errorf("there is a new series %s", series)
		}
	}
	for series := range before {
		if strings.Contains(strings.ToLower(series), "odd") || strings.Contains(series, owner) || strings.Contains(series, file) {
			t.Errorf("there is a series %s", series)
		}
	}
}

// TestRejected: what meets a limit is counted as that.
func TestRejected(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 2)
	p := tell(t, func(_ *config.Config, m *manager.Config, rt *router.Config) {
		rt.MaxPerOwner, rt.MaxConcurrent = 1, 2
	})
	id := p.create("")
	body := func() io.Reader { return &stopped{hold: hold, held: held} }
	var wg sync.WaitGroup
	wg.Go(func() {
		req, err := http.NewRequestWithContext(context.Background(), "POST", p.url+files, body())
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		req.Header.Set(api.HeaderSessionID, id)
		if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
			resp.Body.Close()
		}
	})
	<-held
	for p.scrape()[`agentcube_router_dial_duration_seconds_count{outcome="ok"}`] != "1" { // it has a place by then
		time.Sleep(time.Millisecond)
	}
	if resp, text := p.do("GET", files+"/x", id, "", ""); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a second request = %d %s", resp.StatusCode, text)
	}
	if n := p.scrape()[`agentcube_router_rejected_total{limit="owner"}`]; n != "1" {
		t.Errorf("%q are counted", n)
	}
	close(hold)
	wg.Wait()
}

// stopped is a body that does not come to its end before hold is closed.
type stopped struct{ hold, held chan struct{} }

func (s *stopped) Read(p []byte) (int, error) {
	select {
	case s.held <- struct{}{}:
	default:
	}
	<-s.hold
	return 0, io.EOF
}

// TestTraces: a client's trace goes on through both planes and into the sandbox.
func TestTraces(t *testing.T) {
	to := otlptest.New(t)
	p := tell(t, func(c *config.Config, _ *manager.Config, _ *router.Config) {
		c.Tracing, c.TracingEndpoint = true, to.URL
	})
	const made, used = "00-11111111111111111111111111111111-2222222222222222-01", "00-33333333333333333333333333333333-4444444444444444-01"
	id := p.create(made)
	p.want("POST", "/v1/sessions/"+id+"/pause", "", "", "")
	p.put(id, used)
	resp, _ := p.do("GET", "/v1/sessions/"+id+"x", "", "", "00-55555555555555555555555555555555-6666666666666666-00")
	if got := resp.Header.Get(api.HeaderTraceID); got != strings.Repeat("5", 32) {
		t.Errorf("the answer names the trace %q", got)
	}
	resp, _ = p.do("GET", "/v1/sessions/"+id, "", "", "00-odd")
	if got := resp.Header.Get(api.HeaderTraceID); !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(got) {
		t.Errorf("without a trace of the client's the answer names %q", got)
	}
	p.want("GET", files+"/"+file, id, "", "")
	p.want("GET", "/health", "", "", "")
	p.want("GET", "/health/live", "", "", "")
	p.stop()
	spans := to.Spans()
	creation := tree(spans, strings.Repeat("1", 32), "2222222222222222", "")
	if want := []string{
		"manager POST /v1/code-interpreter", "manager POST /v1/code-interpreter/sandbox create",
		"manager POST /v1/code-interpreter/sandbox init", "manager POST /v1/code-interpreter/store create",
		"manager POST /v1/code-interpreter/store touch", "manager POST /v1/code-interpreter/store update",
	}; !slices.Equal(creation, want) {
		t.Errorf("the creation is traced as\n%s\nwant\n%s", strings.Join(creation, "\n"), strings.Join(want, "\n"))
	}
	use := tree(spans, strings.Repeat("3", 32), "4444444444444444", "")
	for _, step := range []string{
		"router POST code-interpreter", "router POST code-interpreter/sandbox dial",
		"router POST code-interpreter/session wake", "router POST code-interpreter/session wake/sandbox resume",
	} {
		if !slices.Contains(use, step) {
			t.Errorf("the use of a session that sleeps is traced as\n%s\nwithout %s", strings.Join(use, "\n"), step)
		}
	}
	if len(tree(spans, strings.Repeat("5", 32), "6666666666666666", "")) > 0 {
		t.Error("a trace is recorded that its client does not record")
	}
	if slices.ContainsFunc(spans, func(s otlptest.Span) bool { return strings.Contains(s.Name, "health") }) {
		t.Error("probes are traced")
	}
	p.checkInside(spans)
	for _, secret := range []string{owner, bearer, content, file, base64.StdEncoding.EncodeToString([]byte(content))} {
		if bytes.Contains(to.Raw(), []byte(secret)) {
			t.Errorf("spans have %q in them", secret)
		}
	}
	if !strings.Contains(p.log.String(), "trace="+strings.Repeat("3", 32)) {
		t.Errorf("no line of the log names the trace:\n%s", p.log)
	}
}

// checkInside: what the sandbox was told of its request is the Router's step.
func (p *told) checkInside(spans []otlptest.Span) {
	p.t.Helper()
	if len(p.inside) != 1 {
		p.t.Fatalf("the sandbox was told %q", p.inside)
	}
	parent, ok := trace.Parse(p.inside[0])
	at := slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Name == "router POST code-interpreter" })
	if at < 0 || !ok || !parent.Sampled || parent.String()[36:52] != spans[at].ID || parent.ID() != spans[at].Trace {
		p.t.Errorf("the sandbox was told %q, of the spans %+v", p.inside[0], spans)
	}
	if note := spans[at].Notes; note["http.response.status_code"] != "200" || note["agentcube.request_id"] == "" || note["agentcube.session"] == "" {
		p.t.Errorf("of the request is noted %v", note)
	}
}

// tree are the steps below one, sorted, each with those that it is part of.
func tree(spans []otlptest.Span, of, parent, path string) []string {
	var out []string
	for _, s := range spans {
		if s.Trace == of && s.Parent == parent {
			out = append(out, path+s.Name)
			out = append(out, tree(spans, of, s.ID, path+s.Name+"/")...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestWithoutTracing: a client's trace reaches the sandbox also where AgentCube has no
// part in it, if it is well formed.
func TestWithoutTracing(t *testing.T) {
	p := tell(t, func(*config.Config, *manager.Config, *router.Config) {})
	id := p.create("")
	const parent = "00-33333333333333333333333333333333-4444444444444444-01"
	p.put(id, parent)
	p.put(id, parent+"-more")
	p.put(id, "")
	if want := []string{parent, "", ""}; !slices.Equal(p.inside, want) {
		t.Errorf("the sandbox was told %q, want %q", p.inside, want)
	}
}
