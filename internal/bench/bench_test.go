package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/client"
)

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, tt := range []struct {
		samples []float64
		p, want float64
	}{
		{[]float64{7}, 50, 7}, {[]float64{7}, 99, 7}, {[]float64{1, 2}, 50, 1}, {[]float64{1, 2, 3}, 50, 2},
		{hundred, 50, 50}, {hundred, 95, 95}, {hundred, 99, 99}, {hundred[:20], 95, 19}, {hundred[:20], 99, 20},
	} {
		if got := percentile(tt.samples, tt.p); got != tt.want {
			t.Errorf("p%v of %d samples = %v, want %v", tt.p, len(tt.samples), got, tt.want)
		}
	}
}

func TestResultComparesMedians(t *testing.T) {
	r := newResult("x", "ms", 2, []float64{4, 1, 9}, "ref", []float64{3, 1, 2})
	if r.N != 3 || r.P50 != 4 || r.Reference.P50 != 2 || r.Reference.P99 != 3 || *r.Ratio != 2 {
		t.Errorf("result %+v, reference %+v", r, r.Reference)
	}
	if r := newResult("x", "ms", 1, []float64{4}, "ref", nil); r.Reference != nil || r.Ratio != nil {
		t.Errorf("result without reference %+v", r)
	}
}

// fakeServer answers the calls that a bench makes, and counts sessions.
type fakeServer struct {
	mu       sync.Mutex
	alive    map[string]bool
	made     int
	output   string
	exitCode int
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/code-interpreter":
		f.made++
		id := "s" + strconv.Itoa(f.made)
		f.alive[id] = true
		fmt.Fprintf(w, `{"sessionId":%q}`, id)
	case r.Method == http.MethodDelete:
		delete(f.alive, filepath.Base(r.URL.Path))
	case strings.HasSuffix(r.URL.Path, "/api/execute"):
		fmt.Fprintf(w, `{"exit_code":%d,"stdout":%q,"stderr":""}`, f.exitCode, f.output)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestRunMeasuresAndCleansUp(t *testing.T) {
	fake := &fakeServer{alive: map[string]bool{}, output: "1\n"}
	srv := httptest.NewServer(fake)
	defer srv.Close()
	c, err := client.New(client.Config{BaseURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var done, total int
	opts := Options{
		Client: c, N: 5, Concurrency: []int{1, 2}, Only: []string{FirstOutput, ExecTrue},
		Step: func(d, all int) { done, total = d, all },
	}
	report, err := Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range report.Results {
		got = append(got, fmt.Sprintf("%s/%d/%d", r.Name, r.Concurrency, r.N))
	}
	want := []string{"first_output/1/5", "exec_true/1/5", "first_output/2/6", "exec_true/2/6"}
	if !slices.Equal(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
	if done != total || total != 22 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if len(fake.alive) != 0 || fake.made != 13 {
		t.Errorf("%d sessions made, %d left", fake.made, len(fake.alive))
	}

	// A wrong answer is no sample, and the session goes all the same.
	fake.output = "2\n"
	if _, err := Run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "output") {
		t.Errorf("wrong output: %v", err)
	}
	if len(fake.alive) != 0 {
		t.Errorf("%d sessions left", len(fake.alive))
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted run: %v", err)
	}
	for _, bad := range []Options{{N: 0, Concurrency: []int{1}}, {N: 1}, {N: 1, Concurrency: []int{0}}, {N: 1, Concurrency: []int{1}, Only: []string{"x"}}} {
		if _, err := Run(t.Context(), bad); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
}

func TestNativeReference(t *testing.T) {
	n, err := startNative(t.Context(), "python3")
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	for range 3 {
		if ms, err := n.run(); err != nil || ms <= 0 {
			t.Fatalf("%v ms, %v", ms, err)
		}
	}
}

func TestPlainServerMovesTheFile(t *testing.T) {
	p, stop, err := startPlainServer(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := p.get(t.Context()); err == nil {
		t.Error("got a file that was not put")
	}
	if err := p.put(t.Context(), make([]byte, transferBytes)); err != nil {
		t.Fatal(err)
	}
	if err := p.get(t.Context()); err != nil {
		t.Error(err)
	}
}

// process makes the /proc directory of a process.
func process(t *testing.T, proc string, pid, parent int, argv0, args, group string, anonKiB int) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	for name, content := range map[string]string{
		"status":       fmt.Sprintf("Name:\tx\nPPid:\t%d\n", parent),
		"cmdline":      argv0 + "\x00" + args + "\x00",
		"cgroup":       "0::/" + group + "\n",
		"smaps_rollup": fmt.Sprintf("Rss: 1 kB\nPss_Anon:   %d kB\n", anonKiB),
	} {
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcessesAndMemoryOfASandbox(t *testing.T) {
	proc := t.TempDir()
	process(t, proc, 10, 1, "runsc-sandbox", "boot s-1", "other", 100)
	process(t, proc, 11, 10, "exe", "", "other", 10)                  // a stub below it
	process(t, proc, 12, 11, "exe", "", "other", 1)                   // and one below that
	process(t, proc, 20, 1, "x", "", "agentcube-ab/s-1", 1000)        // by its control group
	process(t, proc, 30, 1, "runsc", "run s-1", "other", 50000)       // the waiting command line
	process(t, proc, 31, 1, "runsc-sandbox", "boot s-2", "x", 500000) // another sandbox
	pids, err := processesOf(proc, "s-1")
	if err != nil || !slices.Equal(pids, []int{10, 11, 12, 20}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	if n, err := ownMemory(proc, "s-1"); n != 1111<<10 || err != nil {
		t.Errorf("memory %d, %v", n, err)
	}
	if _, err := ownMemory(proc, "s-9"); err == nil {
		t.Error("a sandbox without processes has memory")
	}
}
