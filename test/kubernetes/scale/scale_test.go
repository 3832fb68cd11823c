package scale

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// What TestCluster simulates to measure; make simulate-cluster sets them.
var (
	simulated   = flag.Bool("simulate", false, "measure, with the sizes below")
	nodeCount   = flag.Int("nodes", 1000, "nodes")
	sessions    = flag.Int("sessions", 5000, "sessions that live at once")
	poolSize    = flag.Int("pool", 500, "Pods that wait in a pool")
	concurrency = flag.Int("concurrency", 20, "clients")
	requests    = flag.Int("requests", 20000, "requests to sessions")
	endsAfter   = flag.Duration("ends", time.Second, "how long a Pod takes to end")
	idleFor     = flag.Duration("idle", 3*time.Minute, "for how long nothing is asked")
)

// TestCluster: sessions of many nodes come and go, with two managers, and nothing of them
// is left: no Pod, no record, no seat. Where it measures, records are kept for a day, as
// they are by default.
func TestCluster(t *testing.T) {
	small := size{
		nodes: 20, sessions: 200, pool: 40, concurrency: 10, requests: 400, managers: 2, routers: 1,
		idle: time.Second, ends: 100 * time.Millisecond, retention: 2 * time.Second,
	}
	of := small
	if *simulated {
		of = size{
			nodes: *nodeCount, sessions: *sessions, pool: *poolSize, concurrency: *concurrency, requests: *requests, managers: 2, routers: 1,
			idle: *idleFor, ends: *endsAfter, retention: 24 * time.Hour,
		}
	}
	w := startWorld(t, of)
	w.run(t)
	if !*simulated {
		await(t, "the store to be empty", func() bool { return w.keys(t) == "" })
	}
	w.nothingLeft(t)
}

// run makes as many sessions as the size says, half of them from a pool as far as that
// goes, uses them, lets them be, and deletes them.
func (w *world) run(t *testing.T) {
	w.tellMemory(t, "at first")
	began := time.Now()
	w.define(t, cold, 0)
	w.define(t, warm, w.pool)
	await(t, "the pool to be filled", func() bool { return w.pods(t, podspec.LabelPool) == w.pool })
	t.Logf("pool of %d filled after %.1f s", w.pool, time.Since(began).Seconds())

	before := w.sample(t)
	fromPool, k := w.create(t, warm, w.pool/2)
	t.Logf("created from the pool: %v", k)
	w.tell(t, before, "a session from the pool", float64(len(fromPool)))
	if t.Failed() {
		return
	}
	before = w.sample(t)
	made, k := w.create(t, cold, w.sessions-len(fromPool))
	t.Logf("created cold: %v", k)
	w.tell(t, before, "a session from cold", float64(len(made)))
	await(t, "all Pods", func() bool { return w.pods(t, podspec.LabelSandbox) == w.sessions })
	w.tellMemory(t, "with all sessions")

	before = w.sample(t)
	k = w.use(t, cold, made, w.requests)
	t.Logf("used: %v", k)
	w.tell(t, before, "a request", float64(w.requests))

	w.rest(t, "a second with idle sessions")
	w.again(t)
	ids := slices.Concat(fromPool, made)
	before = w.sample(t)
	k = w.delete(t, ids)
	t.Logf("deleted: %v", k)
	w.tell(t, before, "a deletion", float64(len(ids)))
	w.undefine(t, warm)
	w.undefine(t, cold)
	w.tellMemory(t, "in the end")
	w.rest(t, "a second with ended sessions")
}

// rest has nobody ask for anything, for a while.
func (w *world) rest(t *testing.T, what string) {
	before := w.sample(t)
	time.Sleep(w.idle)
	w.tell(t, before, what, time.Since(before.at).Seconds())
}

// again kills a Workload Manager and starts it anew.
func (w *world) again(t *testing.T) {
	p := w.managers[len(w.managers)-1]
	p.kill()
	p.begin(t, os.Getenv("AGENTCUBE_BIN"))
	t.Logf("a Workload Manager serves %.2f s after its start", p.ready.Seconds())
}

// pods counts the Pods that have a label.
func (w *world) pods(t *testing.T, label string) (ready int) {
	t.Helper()
	list, err := w.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: label, ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if podspec.Ready(&list.Items[i]) {
			ready++
		}
	}
	return ready
}

// nothingLeft: no Pod is there any more, and no seat taken.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	await(t, "all Pods to be gone", func() bool {
		list, err := w.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) == 0
	})
	if n := w.redis.Do(t, "ZCARD", "agentcube:{seats}:taken"); n != "0" {
		t.Errorf("%s seats are taken", n)
	}
	if n := w.redis.Do(t, "ZCARD", "agentcube:{sessions}:due"); n != "0" {
		t.Errorf("%s sessions are to end still", n)
	}
}

// keys are those that the store has, but for what limits rates, which goes by itself.
func (w *world) keys(t *testing.T) string {
	t.Helper()
	var left []string
	for key := range strings.SplitSeq(w.redis.Do(t, "KEYS", "*"), "\n") {
		if key != "" && !strings.HasPrefix(key, "agentcube:rate:") {
			left = append(left, key)
		}
	}
	return strings.Join(left, "\n")
}
