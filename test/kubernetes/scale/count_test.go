package scale

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// counts are how often things have happened, by what they are.
type counts map[string]float64

// since is how much more there is than before; what has not changed is left out.
func (c counts) since(before counts) counts {
	out := counts{}
	for what, n := range c {
		if n > before[what] {
			out[what] = n - before[what]
		}
	}
	return out
}

func (c counts) sum() (n float64) {
	for _, one := range c {
		n += one
	}
	return n
}

// per tells the counts by what they are of, the largest first.
func (c counts) per(n float64) string {
	names := slices.SortedFunc(maps.Keys(c), func(a, b string) int { return int(1e6 * (c[b] - c[a])) })
	text := fmt.Sprintf("%.2f:", c.sum()/n)
	for _, name := range names {
		if c[name]/n >= 0.005 {
			text += fmt.Sprintf(" %s %.2f,", name, c[name]/n)
		}
	}
	return strings.TrimRight(text, ",:")
}

// sample is what has been counted until now.
type sample struct {
	at      time.Time
	store   counts // commands of the store
	asked   counts // requests of our programs to the API server
	cluster counts // writes to the API server, of everybody
	cpu     map[*process]time.Duration
}

func (w *world) sample(t *testing.T) sample {
	t.Helper()
	s := sample{at: time.Now(), store: w.commands(t), asked: counts{}, cluster: w.written(t), cpu: map[*process]time.Duration{}}
	for _, p := range slices.Concat(w.managers, w.routers) {
		for what, n := range scrape(t, p.metrics, "rest_client_requests_total", "method") {
			s.asked[what] += n
		}
		s.cpu[p] = p.cpu(t)
	}
	return s
}

// tell logs what has happened since a sample, for each of n.
func (w *world) tell(t *testing.T, before sample, what string, n float64) {
	t.Helper()
	now := w.sample(t)
	t.Logf("%s: commands of the store %s", what, now.store.since(before.store).per(n))
	t.Logf("%s: requests of AgentCube to the API server %s", what, now.asked.since(before.asked).per(n))
	t.Logf("%s: writes to the API server, of all %s", what, now.cluster.since(before.cluster).per(n))
	for part, all := range map[string][]*process{"Workload Managers": w.managers, "Routers": w.routers} {
		var cpu time.Duration
		for _, p := range all {
			cpu += now.cpu[p] - before.cpu[p]
		}
		t.Logf("%s: CPU of the %s %.2f ms", what, part, float64(cpu.Microseconds())/1000/n)
	}
}

// commands are those that Redis has been sent, scripts with what they do in it as one.
func (w *world) commands(t *testing.T) counts {
	t.Helper()
	out := counts{}
	for line := range strings.Lines(w.redis.Do(t, "INFO", "commandstats")) {
		name, rest, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		text, _, _ := strings.Cut(rest, ",")
		if n, err := strconv.ParseFloat(text, 64); found && err == nil && name != "info" && name != "hello" && name != "client|setname" {
			out[name] = n
		}
	}
	return out
}

// written are the writes that the API server has been sent.
func (w *world) written(t *testing.T) counts {
	t.Helper()
	text, err := w.client.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := counts{}
	for line := range strings.Lines(string(text)) {
		labels, n, ok := metric(line, "apiserver_request_total")
		if !ok || labels["verb"] == "GET" || labels["verb"] == "LIST" || labels["verb"] == "WATCH" {
			continue
		}
		what := labels["resource"]
		if sub := labels["subresource"]; sub != "" {
			what += "/" + sub
		}
		out[strings.ToLower(labels["verb"])+" "+what] += n
	}
	return out
}

// scrape is a metric of one of our programs, by one of its labels.
func scrape(t *testing.T, url, name, label string) counts {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := counts{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if labels, n, ok := metric(lines.Text(), name); ok {
			out[labels[label]] += n
		}
	}
	return out
}

// metric reads a line of Prometheus' text. No label here has a quote or comma in it.
func metric(line, name string) (labels map[string]string, n float64, ok bool) {
	rest, found := strings.CutPrefix(strings.TrimSpace(line), name+"{")
	inside, value, closed := strings.Cut(rest, "} ")
	n, err := strconv.ParseFloat(value, 64)
	if !found || !closed || err != nil {
		return nil, 0, false
	}
	labels = map[string]string{}
	for pair := range strings.SplitSeq(inside, ",") {
		k, v, _ := strings.Cut(pair, "=")
		labels[k] = strings.Trim(v, `"`)
	}
	return labels, n, true
}

// cpu is how much of a processor a program has used.
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // of which the kernel makes 100 a second
}

// memory is what a program has in memory, in MiB.
func (p *process) memory(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if kib, found := strings.CutPrefix(line, "VmRSS:"); found {
			n, err := strconv.ParseFloat(strings.Fields(kib)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// tellMemory logs what all of ours have in memory.
func (w *world) tellMemory(t *testing.T, when string) {
	t.Helper()
	for _, p := range slices.Concat(w.managers, w.routers) {
		t.Logf("memory %s: %s %.0f MiB", when, p.name, p.memory(t))
	}
	for line := range strings.Lines(w.redis.Do(t, "INFO", "memory")) {
		if bytes, found := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); found {
			n, _ := strconv.ParseFloat(bytes, 64)
			t.Logf("memory %s: Redis %.1f MiB", when, n/(1<<20))
		}
	}
}
