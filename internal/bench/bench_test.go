package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

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
	prepared []string
	output   string
	exitCode int
	removed  int
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
	case strings.HasSuffix(r.URL.Path, "/prepare"):
		f.prepared = append(f.prepared, r.URL.Path)
		fmt.Fprintln(w, `{"done":true}`)
	case strings.HasSuffix(r.URL.Path, "/api/files"):
		fmt.Fprintln(w, `{}`)
	case strings.HasSuffix(r.URL.Path, "/api/execute"):
		var in struct{ Remove []string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		f.removed += len(in.Remove)
		fmt.Fprintf(w, `{"exit_code":%d,"stdout":%q,"stderr":""}`, f.exitCode, f.output)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func startFake(t *testing.T) (*fakeServer, *client.Client) {
	t.Helper()
	fake := &fakeServer{alive: map[string]bool{}, output: "1\n"}
	srv := httptest.NewServer(fake)
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{BaseURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return fake, c
}

func TestRunMeasuresAndCleansUp(t *testing.T) {
	fake, c := startFake(t)
	var done, total int
	var pools []int
	opts := Options{
		Client: c, Plain: Template{"default", "plain"}, N: 5, Concurrency: []int{1, 2},
		Only: []string{FirstOutputHot, CreateDrained, ExecTrue, RunCodePython},
		Warm: func(_ context.Context, size int) (Template, error) {
			pools = append(pools, size)
			return Template{"default", "warm"}, nil
		},
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
	want := []string{
		"first_output_hot/1/5", "create_drained/1/5", "exec_true/1/5", "run_code_python/1/5",
		"first_output_hot/2/6", "create_drained/2/6", "exec_true/2/6", "run_code_python/2/6",
	}
	if !slices.Equal(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
	if done != total || total != 44 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if len(fake.alive) != 0 || fake.made != 26 {
		t.Errorf("%d sessions made, %d left", fake.made, len(fake.alive))
	}
	if !slices.Equal(pools, []int{1, 0, 2, 0}) {
		t.Errorf("pools of %v", pools)
	}
	// The pool is waited for before every round: five alone, three by two.
	full := slices.DeleteFunc(fake.prepared, func(path string) bool { return !strings.Contains(path, "/warm/") })
	if len(full) != 8 {
		t.Errorf("waited %d times for the pool", len(full))
	}
	if fake.removed != 13 {
		t.Errorf("%d scripts were to be removed", fake.removed)
	}
}

func TestRunFailsAndCleansUp(t *testing.T) {
	fake, c := startFake(t)
	// A wrong answer is no sample, and the session goes all the same.
	fake.output = "2\n"
	opts := Options{Client: c, Plain: Template{"default", "plain"}, N: 5, Concurrency: []int{3}, Only: []string{FirstOutputDrained}}
	if _, err := Run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "output") {
		t.Errorf("wrong output: %v", err)
	}
	if len(fake.alive) != 0 || fake.made != 3 {
		t.Errorf("%d sessions made, %d left", fake.made, len(fake.alive))
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
	python, err := realPython(t.Context(), "python3")
	if err != nil || !filepath.IsAbs(python) {
		t.Fatalf("interpreter %q, %v", python, err)
	}
	for _, call := range [][]string{{"check_call", "true"}, {"check_output", python, "-c", "print(1)"}} {
		n, err := startNative(t.Context(), python, call)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if ms, err := n.run(); err != nil || ms <= 0 {
				t.Errorf("%q: %v ms, %v", call, ms, err)
			}
		}
		n.stop()
	}
	n, err := startNative(t.Context(), python, []string{"check_call", "false"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	if ms, err := n.run(); err == nil {
		t.Errorf("a command that fails took %v ms", ms)
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
func process(t *testing.T, proc string, pid, parent int, argv0, args string, anonKiB int, smaps string) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	for name, content := range map[string]string{
		"status":       fmt.Sprintf("Name:\tx\nPPid:\t%d\nVmPTE:\t   8 kB\n", parent),
		"cmdline":      argv0 + "\x00" + args + "\x00",
		"smaps_rollup": fmt.Sprintf("Rss: 1 kB\nPss_Anon:   %d kB\n", anonKiB),
		"smaps":        smaps,
	} {
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// kernelMaps has 20 KiB of Go heap.
const kernelMaps = `00400000-00c00000 r-xp 00000000 fe:00 42 /x
Anonymous:             7 kB
3c221cc00000-3c221e400000 rw-p 00000000 00:00 0 
Size:              24576 kB
Anonymous:            12 kB
c000000000-c000400000 rw-p 00000000 00:00 0 [anon: Go: heap]
Anonymous:             8 kB
3c3000000000-3c3000400000 rw-s 00000000 00:01 9 /memfd:x (deleted)
Anonymous:           100 kB
7fda2283e000-7fda22b00000 rw-p 00000000 00:00 0 
Anonymous:           200 kB
`

func TestFootprintOfASandbox(t *testing.T) {
	proc := t.TempDir()
	process(t, proc, 10, 1, "runsc-sandbox", "boot s-1", 100, kernelMaps)
	process(t, proc, 11, 10, "exe", "", 10, "")                      // a stub below it
	process(t, proc, 12, 11, "exe", "", 1, "")                       // and one below that
	process(t, proc, 30, 1, "runsc", "run s-1", 50000, "")           // the waiting command line
	process(t, proc, 31, 1, "runsc-sandbox", "boot s-2", 500000, "") // another sandbox
	if pids, err := sentriesOf(proc, "s-1"); err != nil || !slices.Equal(pids, []int{10}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	f, err := footprintOf(proc, 10)
	want := footprint{heap: 20 << 10, rest: 80 << 10, stubs: 11 << 10, pageTables: 24 << 10}
	if err != nil || f != want || f.total() != 111<<10 {
		t.Errorf("memory %+v, %v, want %+v", f, err, want)
	}
	if _, err := footprintOf(proc, 99); err == nil {
		t.Error("a process that is not there has memory")
	}
}

func TestMemoryFilesOfThisProcess(t *testing.T) {
	for _, name := range []string{"runsc-memory", "other"} {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[uint64]bool{}
	if guest, other := memoryFiles("/proc/self/fd", seen); guest != 1<<20 || other != 1<<20 {
		t.Errorf("memory files of %d and %d bytes", guest, other)
	}
	if guest, other := memoryFiles("/proc/self/fd", seen); guest+other != 0 {
		t.Errorf("counted twice: %d and %d bytes", guest, other)
	}
}

func TestSandboxPID(t *testing.T) {
	data := t.TempDir()
	for id, record := range map[string]string{"running": `{"at":{"run":"x","pid":7}}`, "paused": `{"id":"paused"}`} {
		dir := filepath.Join(data, "sandboxes", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "record.json"), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pid, err := sandboxPID(data, "running"); pid != 7 || err != nil {
		t.Errorf("process %d, %v", pid, err)
	}
	for _, id := range []string{"paused", "missing"} {
		if pid, err := sandboxPID(data, id); err == nil {
			t.Errorf("sandbox %s has process %d", id, pid)
		}
	}
}

func TestLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.json")
	for content, ok := range map[string]bool{
		`{"pause": 2, "exec_true": 10}`: true, `{}`: false, `{"pause": 0}`: false, `{"paws": 1}`: false, `[]`: false,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := ReadLimits(path); (err == nil) != ok {
			t.Errorf("%s: %v, %v", content, l, err)
		}
	}
	l := Limits{Pause: 2, ExecTrue: 10}
	ratio := func(v float64) *float64 { return &v }
	report := Report{Results: []Result{
		{Name: ExecTrue, Ratio: ratio(10)}, {Name: Pause, Ratio: ratio(2.1)}, {Name: ExecTrue, Concurrency: 10, Ratio: ratio(99)},
	}}
	got, err := l.Check(report)
	want := []Verdict{{ExecTrue, 10, 10, true}, {Pause, 2.1, 2, false}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("verdicts %v, %v, want %v", got, err, want)
	}
	report.Results[1].Ratio = nil
	if _, err := l.Check(report); !errors.Is(err, ErrNoRatio) {
		t.Errorf("without a ratio: %v", err)
	}
	if again := l.Of([]string{Pause}); !maps.Equal(again, Limits{Pause: 2}) || len(l) != 2 {
		t.Errorf("limits of pause: %v of %v", again, l)
	}
}
