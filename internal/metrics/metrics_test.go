package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/router"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
)

// opened is a driver in memory and a store on disk, and their measure.
func opened(t *testing.T) (*Metrics, sandbox.Driver, Store) {
	t.Helper()
	plain := fake.New(fake.Config{Host: fake.NewHost(nil), Images: []string{"python"}})
	store := sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))
	for _, open := range []func(context.Context) error{plain.Open, store.Open} {
		if err := open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m := New("1.2.3")
	measured := m.Store(store)
	m.Watch(func() Usage { return Usage{Counted: true, Running: 3} }, plain)
	t.Cleanup(func() {
		if err := errors.Join(plain.Close(), measured.Close()); err != nil {
			t.Error(err)
		}
	})
	return m, m.Driver(plain), measured
}

// use has something happen to each of the metrics.
func use(t *testing.T, m *Metrics, d sandbox.Driver, s Store) {
	t.Helper()
	full := sandbox.Complete(d)
	spec := sandbox.Spec{ID: "s-1", Image: "python"}
	other := spec
	other.Image = "python:2"
	full.Warm([]sandbox.Pool{{Name: "default/python", Spec: spec, Size: 1}, {Name: "default/python", Spec: other, Size: 2}})
	if _, err := d.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(t.Context(), sandbox.Spec{ID: "s-2", Image: "none"}); !errors.Is(err, sandbox.ErrNoImage) {
		t.Fatal(err)
	}
	if err := full.Pause(t.Context(), "s-1"); err != nil {
		t.Fatal(err)
	}
	dialer := m.Dialer(router.ByID{Sandboxes: d})
	if _, err := dialer.Dial(t.Context(), session.Session{SandboxID: "s-1"}, 8080); !errors.Is(err, sandbox.ErrPaused) {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "none"); !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	waker := m.Waker(wakes{api.Errorf(http.StatusTooManyRequests, api.CodeServerOverloaded, "full")})
	if err := waker.Wake(t.Context(), "s"); err == nil {
		t.Fatal("the error of waking is gone")
	}
	of := m.Recorder(audit.Nothing{})
	for _, e := range []record.Event{
		{Action: record.SessionCreated}, {Action: record.SessionCreated, Checkpoint: "c"}, {Action: record.SessionForked},
		{Action: record.SessionEnded, Fate: string(api.FateIdle)}, {Action: record.SessionPaused}, {Action: record.SessionResumed},
		{Action: record.Request, Input: &record.Body{Bytes: 5}, Output: &record.Body{Bytes: 7}},
		{Action: record.TunnelOpened}, {Action: record.TunnelOpened},
		{Action: record.TunnelClosed, Seconds: 2, Input: &record.Body{Bytes: 50}, Output: &record.Body{Bytes: 70}},
	} {
		of.Append(e)
	}
	for _, p := range []Plane{Manager, Router} {
		over := m.Observe(func(*http.Request) Plane { return p })(httptest.NewRequest("GET", "/", nil))
		over(httpserve.Served{Status: 503, Code: api.CodeUnavailable, Duration: time.Second})
	}
	m.Rejected("owner")
	m.SpansSent(3, nil)
	m.SpansSent(2, errors.New("away"))
}

type wakes struct{ err error }

func (w wakes) Wake(context.Context, string) error { return w.err }

// TestNames: Prometheus's own linter has nothing to say, with all metrics in use.
func TestNames(t *testing.T) {
	m, d, s := opened(t)
	use(t, m, d, s)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "agentcube_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	all, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range all {
		seen[f.GetName()] = true
	}
	for _, f := range m.families {
		if !seen[f.name] {
			t.Errorf("%s does not appear: use it in this test", f.name)
		}
	}
	if !seen["go_goroutines"] || !seen["process_cpu_seconds_total"] {
		t.Error("what the process itself uses is not told")
	}
}

// TestCounts: what has passed is counted as what it was.
func TestCounts(t *testing.T) {
	m, d, s := opened(t)
	use(t, m, d, s)
	want := `
# HELP agentcube_pool_sandboxes_wanted Sandboxes that shall wait ready-made, by template.
# TYPE agentcube_pool_sandboxes_wanted gauge
agentcube_pool_sandboxes_wanted{template="default/python"} 3
# HELP agentcube_router_received_bytes_total Bytes of bodies, or of encrypted connections that are over, from clients to sandboxes.
# TYPE agentcube_router_received_bytes_total counter
agentcube_router_received_bytes_total{via="request"} 5
agentcube_router_received_bytes_total{via="tunnel"} 50
# HELP agentcube_router_sent_bytes_total Bytes of bodies, or of encrypted connections that are over, from sandboxes to clients.
# TYPE agentcube_router_sent_bytes_total counter
agentcube_router_sent_bytes_total{via="request"} 7
agentcube_router_sent_bytes_total{via="tunnel"} 70
# HELP agentcube_router_tunnels Encrypted connections that are being carried.
# TYPE agentcube_router_tunnels gauge
agentcube_router_tunnels 1
# HELP agentcube_sessions_created_total Sessions that were made, by what they began with.
# TYPE agentcube_sessions_created_total counter
agentcube_sessions_created_total{origin="checkpoint"} 1
agentcube_sessions_created_total{origin="fork"} 1
agentcube_sessions_created_total{origin="template"} 1
# HELP agentcube_trace_spans_total Spans that were sent to the collector, by whether it took them.
# TYPE agentcube_trace_spans_total counter
agentcube_trace_spans_total{outcome="failed"} 2
agentcube_trace_spans_total{outcome="taken"} 3
`
	err := testutil.GatherAndCompare(m.registry, strings.NewReader(want), "agentcube_pool_sandboxes_wanted", "agentcube_router_received_bytes_total",
		"agentcube_router_sent_bytes_total", "agentcube_router_tunnels", "agentcube_sessions_created_total", "agentcube_trace_spans_total")
	if err != nil {
		t.Error(err)
	}
	for what, want := range map[string][2]string{
		"agentcube_sandbox_create_duration_seconds":    {`start="pool"`, `outcome="ok"`},
		"agentcube_sandbox_operation_duration_seconds": {`operation="pause"`, `outcome="ok"`},
		"agentcube_router_dial_duration_seconds":       {`outcome="paused"`, `outcome="paused"`},
		"agentcube_router_wake_duration_seconds":       {`outcome="full"`, `outcome="full"`},
		"agentcube_store_operation_duration_seconds":   {`operation="get"`, `outcome="ok"`},
		"agentcube_request_errors_total":               {`plane="router"`, `code="UNAVAILABLE"`},
	} {
		text := scrape(t, m)
		if !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
			return strings.HasPrefix(line, what) && strings.Contains(line, want[0]) && strings.Contains(line, want[1])
		}) {
			t.Errorf("there is no %s with %v", what, want)
		}
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestStoreAnswers: what a store refuses is its answer, and what it cannot do is an
// error; either reaches the caller as it was.
func TestStoreAnswers(t *testing.T) {
	m, _, s := opened(t)
	rec := session.Session{ID: "a", Owner: "o", State: api.StateRunning, CreatedAt: time.Now().UTC()}
	if _, err := s.Create(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	refusal := errors.New("not now")
	if _, err := s.Update(t.Context(), "a", func(*session.Session) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("a change that is refused = %v", err)
	}
	if _, err := s.Update(t.Context(), "b", func(*session.Session) error { return nil }); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a change of nothing = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "a"); err == nil {
		t.Error("a store that is closed answers")
	}
	text := scrape(t, m)
	if strings.Contains(text, `operation="update",outcome="error"`) || strings.Contains(text, `operation="get",outcome="ok"`) {
		t.Errorf("counted is\n%s", text)
	}
}

// TestIsolator: a driver whose sandboxes differ says so also when it is measured.
func TestIsolator(t *testing.T) {
	m := New("1")
	var d sandbox.Driver = fake.New(fake.Config{Host: fake.NewHost(nil)})
	if _, ok := m.Driver(d).(sandbox.Isolator); ok {
		t.Error("a driver that is no Isolator became one")
	}
	i, ok := m.Driver(isolating{d}).(sandbox.Isolator)
	if !ok {
		t.Fatal("an Isolator is none any more")
	}
	if how, err := i.IsolationOf(sandbox.Spec{}); how != "kata" || err != nil {
		t.Errorf("IsolationOf = %q, %v", how, err)
	}
}

type isolating struct{ sandbox.Driver }

func (isolating) IsolationOf(sandbox.Spec) (string, error) { return "kata", nil }

var used = regexp.MustCompile(`agentcube_[a-z_]+`)

const docs, dashboard = "../../docs/metrics.md", "../../deploy/dashboards/agentcube.json"

// TestDocumentation holds the page about metrics to those that there are.
func TestDocumentation(t *testing.T) {
	m, _, _ := opened(t)
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| metric | kind | labels | what it is |\n|---|---|---|---|\n"
	_, rest, ok := strings.Cut(string(text), head)
	if !ok {
		t.Fatalf("%s has no table of metrics", docs)
	}
	table, _, _ := strings.Cut(rest, "\n\n")
	var want []string
	for _, f := range m.families {
		labels := "`" + strings.Join(f.labels, "`, `") + "`"
		if len(f.labels) == 0 {
			labels = ""
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", f.name, f.kind, labels, f.help))
	}
	slices.Sort(want)
	if got := strings.TrimSpace(table); got != strings.Join(want, "\n") {
		t.Errorf("the table must be\n%s", strings.Join(want, "\n"))
	}
	m.known(t, docs, string(text))
}

// TestDashboard: every metric that the dashboard asks for is one.
func TestDashboard(t *testing.T) {
	m, _, _ := opened(t)
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			if n := m.known(t, dashboard+": "+p.Title, target.Expr); n == 0 {
				t.Errorf("%s asks for nothing of AgentCube's", p.Title)
			}
			asked++
		}
	}
	if asked < 10 {
		t.Errorf("the dashboard asks %d times: is it read as it is?", asked)
	}
}

// known counts the metrics that a text names, which all have to exist, with labels
// that they have.
func (m *Metrics) known(t *testing.T, where, text string) int {
	t.Helper()
	names := used.FindAllString(text, -1)
	for _, name := range names {
		if !slices.ContainsFunc(m.families, func(f family) bool {
			return name == f.name || f.kind == "histogram" && slices.Contains([]string{f.name + "_bucket", f.name + "_sum", f.name + "_count"}, name)
		}) {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	for _, by := range regexp.MustCompile(`(agentcube_[a-z_]+?)(?:_bucket|_sum|_count)?\{([^}]*)\}`).FindAllStringSubmatch(text, -1) {
		for _, label := range regexp.MustCompile(`([a-z_]+)\s*(?:=|!=|=~|!~)`).FindAllStringSubmatch(by[2], -1) {
			if label[1] == "instance" { // Prometheus adds it
				continue
			}
			if !slices.ContainsFunc(m.families, func(f family) bool { return f.name == by[1] && slices.Contains(f.labels, label[1]) }) {
				t.Errorf("%s: %s has no label %s", where, by[1], label[1])
			}
		}
	}
	return len(names)
}
