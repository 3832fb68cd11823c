package smoke

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// left counts what there is in these namespaces, by kind.
func left(t *testing.T) map[string]int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{"processes": len(processes), "mounts": strings.Count(string(mounts), "\n"), "links": len(links)}
	for kind, pattern := range map[string]string{
		"files": "/run/cluster", "control groups": "/sys/fs/cgroup/*/agentcube-cluster-*", "networks": "/run/netns",
	} {
		roots, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
				if err == nil && (e.IsDir() || kind != "control groups") {
					out[kind]++
				}
				return nil
			})
		}
	}
	return out
}

// TestStop: a cluster that is stopped with Pods in it leaves nothing, even where
// the namespaces that it is in go on.
func TestStop(t *testing.T) {
	before := left(t)
	t.Run("cluster", func(t *testing.T) {
		n := startNode(t, cluster.Options{})
		class := cluster.GVisor
		sandboxed := probe("sandboxed")
		sandboxed.Spec.RuntimeClassName = &class
		n.run(t, probe("plain"))
		n.run(t, sandboxed)
		if during := left(t); during["processes"] < before["processes"]+8 || during["control groups"] <= before["control groups"] ||
			during["mounts"] <= before["mounts"] || during["links"] <= before["links"] {
			t.Errorf("of a cluster that runs there is %v, and was %v without: this test counts the wrong things", during, before)
		}
		began := time.Now()
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("it stopped in %v", time.Since(began).Round(10*time.Millisecond))
	})
	// Fewer there may be: a mount of others vanishes when they remove its folder.
	for kind, n := range left(t) {
		if n > before[kind] {
			t.Errorf("there are %d %s, and were %d before", n, kind, before[kind])
		}
	}
}
