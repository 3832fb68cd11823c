package install

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/trace/otlp/otlptest"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// collectorAddress is where Pods find the collector of these tests.
var collectorAddress = net.JoinHostPort(cluster.NodeIP, "4318")

// scrape sums up the metrics of all Pods of a component; of gauges it takes the largest.
func (w *world) scrape(t *testing.T, component string) map[string]float64 {
	t.Helper()
	pods, err := w.client.CoreV1().Pods(release).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("Pods of %s: %v", component, err)
	}
	all := map[string]float64{}
	for _, p := range pods.Items {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(p.Status.PodIP, "9090")+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("metrics of %s: %d %s, %v", p.Name, resp.StatusCode, text, err)
		}
		gauges := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutSuffix(strings.TrimPrefix(line, "# TYPE "), " gauge\n"); ok {
				gauges[name] = true
			}
			at := strings.LastIndex(line, " ")
			value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
			if line[0] == '#' || err != nil {
				continue
			}
			series := line[:at]
			if name, _, _ := strings.Cut(series, "{"); gauges[name] {
				all[series] = max(all[series], value)
			} else {
				all[series] += value
			}
		}
	}
	return all
}

// telemetry: the parts tell what they do, in numbers and as one trace, whichever of
// their replicas it was.
func (w *world) telemetry(t *testing.T, token string) {
	w.template(t, "default", "told", object{"warmPoolSize": 1, "template": object{"resources": small()}})
	w.awaitPool(t, "told", 1)
	const id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	c, err := client.New(client.Config{
		WorkloadManagerURL: w.manager, RouterURL: w.router, Token: token, PlainText: true,
		Traceparent: func(context.Context) string { return "00-" + id + "-" + parent + "-01" },
	})
	if err != nil {
		t.Fatal(err)
	}
	s := w.create(t, c, client.CreateOptions{Template: "told"})
	res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"sh", "-c", "echo $TRACEPARENT"}})
	if err != nil {
		t.Fatal(err)
	}
	told := string(res.Stdout)
	// Each process sends by itself.
	spans := w.collector.Await(func(all []otlptest.Span) bool {
		for _, name := range []string{"router POST code-interpreter", "manager POST /v1/code-interpreter"} {
			if !slices.ContainsFunc(all, func(s otlptest.Span) bool { return s.Trace == id && s.Name == name }) {
				return false
			}
		}
		return true
	})
	at := func(name string) otlptest.Span {
		i := slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Trace == id && s.Name == name })
		if i < 0 {
			t.Fatalf("the trace has no step %q: %+v", name, spans)
		}
		return spans[i]
	}
	route, made := at("router POST code-interpreter"), at("manager POST /v1/code-interpreter")
	if route.Parent != parent || made.Parent != parent || at("sandbox create").Parent != made.ID || at("sandbox dial").Parent != route.ID {
		t.Errorf("the trace is %+v", spans)
	}
	if want := "00-" + id + "-" + route.ID + "-01\n"; told != want {
		t.Errorf("the sandbox is told %q, want %q", told, want)
	}

	manager, router := w.scrape(t, "workloadmanager"), w.scrape(t, "router")
	for series, least := range map[string]float64{
		`agentcube_sessions_created_total{origin="template"}`:                               1,
		`agentcube_sandbox_create_duration_seconds_count{outcome="ok",start="pool"}`:        1,
		`agentcube_manager_requests_total{code="2xx",route="POST /v1/code-interpreter"}`:    1,
		`agentcube_store_operation_duration_seconds_count{operation="create",outcome="ok"}`: 1,
		`agentcube_pool_sandboxes_wanted{template="default/told"}`:                          1,
	} {
		if manager[series] < least {
			t.Errorf("%s of all Workload Managers is %v, want at least %v", series, manager[series], least)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(manager)), func(series string) bool { return strings.HasPrefix(series, "controller_runtime_reconcile_total") }) {
		t.Error("the operator tells nothing")
	}
	for _, series := range []string{
		`agentcube_router_requests_total{code="2xx",kind="code-interpreter",method="POST"}`,
		`agentcube_router_dial_duration_seconds_count{outcome="ok"}`, `agentcube_router_sent_bytes_total{via="request"}`,
	} {
		if router[series] < 1 {
			t.Errorf("%s of all Routers is %v", series, router[series])
		}
	}
	board, err := w.client.CoreV1().ConfigMaps(release).Get(t.Context(), release+"-dashboard", metav1.GetOptions{})
	if err != nil || !json.Valid([]byte(board.Data["agentcube.json"])) {
		t.Errorf("the dashboard is %v, %v", board, err)
	}
	await(t, "sessions and pools as they are", func() (bool, error) {
		now := w.scrape(t, "workloadmanager")
		running, ready := now[`agentcube_sessions{state="running"}`], now[`agentcube_pool_sandboxes_ready{template="default/told"}`]
		return running >= 1 && ready == 1, fmt.Errorf("%v sessions run, %v wait", running, ready)
	})
}
