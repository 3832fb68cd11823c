package cluster_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

func binaries(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("AGENTCUBE_KUBERNETES")
	if dir == "" {
		t.Fatal("AGENTCUBE_KUBERNETES is not set; run these tests with: make test-kubernetes")
	}
	return dir
}

// TestAPIServer: the API server alone runs beside everything else on the machine.
func TestAPIServer(t *testing.T) {
	began := time.Now()
	c, err := cluster.Start(t.Context(), cluster.Options{Binaries: binaries(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the API server was ready after %v", time.Since(began).Round(10*time.Millisecond))
	defer c.Stop()
	kubectl := func(input string, args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(binaries(t), "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	// Pods can be made, though nobody makes service accounts.
	kubectl("", "run", "idle", "--image=agentcube.test/none")
	if got := kubectl("", "get", "pod", "idle", "-o", "jsonpath={.status.phase}"); got != "Pending" {
		t.Errorf("a Pod without a node is %q", got)
	}
	// Tokens are signed and checked.
	kubectl("", "create", "serviceaccount", "caller")
	token := strings.TrimSpace(kubectl("", "create", "token", "caller", "--audience=agentcube"))
	review, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": token, "audiences": []string{"agentcube"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := kubectl(string(review), "create", "-f", "-", "-o", "jsonpath={.status.user.username}"); got != "system:serviceaccount:default:caller" {
		t.Errorf("the token is of %q", got)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(c.Kubeconfig)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of a cluster that was stopped: %v", err)
	}
}

// TestNodeNeedsEnter: nothing is done to the real machine.
func TestNodeNeedsEnter(t *testing.T) {
	if c, err := cluster.Start(t.Context(), cluster.Options{Binaries: binaries(t), Node: true}); err == nil {
		c.Stop()
		t.Error("a node has started outside of Enter")
	}
}

// command builds the command once, and calls it with a folder of its own for what
// it makes.
func command(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "cluster")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/cluster").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(args ...string) *exec.Cmd {
		cmd := exec.Command(program, append([]string{"--binaries", binaries(t)}, args...)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		return cmd
	}
}

// TestCommand: a command runs in the cluster, its status is that of the whole, and
// the machine is as it was.
func TestCommand(t *testing.T) {
	run := command(t)
	before := machine(t, "")
	cmd := run("--", "sh", "-c", "kubectl get node node -o name; echo 1 >/var/lib/agentcube-test; cat /run/place; exit 7")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the command has ended with %v", err)
	}
	place, found := strings.CutPrefix(string(out), "node/node\n")
	if !found {
		t.Errorf("the command has said %q", out)
	}
	if after := machine(t, place); !maps.Equal(before, after) {
		t.Errorf("of the machine there was\n%v\nand is\n%v", before, after)
	}
}

// TestKilled: what is killed leaves no process, and no more than the next run
// removes.
func TestKilled(t *testing.T) {
	run := command(t)
	before := machine(t, "")
	cmd := run("--", "sh", "-c", "echo $(readlink /proc/self/ns/pid) $(cat /run/place); exec sleep 1000")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var namespace, place string
	if _, err := fmt.Fscanln(stdout, &namespace, &place); err != nil {
		t.Fatal(err)
	}
	if n := processes(namespace); n < 8 {
		t.Errorf("a cluster that runs has %d processes: this test counts the wrong ones", n)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for end := time.Now().Add(30 * time.Second); processes(namespace) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d processes are left of a cluster that was killed", processes(namespace))
		}
	}
	if left := machine(t, place); maps.Equal(before, left) {
		t.Error("a cluster that was killed has left nothing to remove: this test counts the wrong things")
	}
	if out, err := run("--tier=apiserver", "--", "true").CombinedOutput(); err != nil {
		t.Errorf("the next run: %v\n%s", err, out)
	}
	if after := machine(t, place); !maps.Equal(before, after) {
		t.Errorf("of the machine there was\n%v\nand is\n%v", before, after)
	}
}

// TestTerminated: a cluster that is asked to end does so in order.
func TestTerminated(t *testing.T) {
	cmd := command(t)("--tier=apiserver", "--", "sh", "-c", "echo ready; exec sleep 1000")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Exited() {
		t.Errorf("it has ended with %v", err)
	}
}

// processes counts those of a namespace of processes.
func processes(namespace string) (n int) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, link := range links {
		if of, _ := os.Readlink(link); of == namespace {
			n++
		}
	}
	return n
}

// machine lists what a cluster, with a place of that name, may change of the machine.
// What others do on it meanwhile is not looked at.
func machine(t *testing.T, place string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, file := range []string{
		"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys",
		"vm/overcommit_memory", "vm/panic_on_oom", "net/ipv4/ip_forward",
	} {
		data, err := os.ReadFile(filepath.Join("/proc/sys", file))
		if err != nil {
			t.Fatal(err)
		}
		out[file] = strings.TrimSpace(string(data))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	out["mounts"] = fmt.Sprint(strings.Count(string(mounts), "/run/cluster") + strings.Count(string(mounts), "agentcube-cluster-"))
	_, err = net.InterfaceByName("cni0")
	out["bridge"] = fmt.Sprint(err == nil)
	for _, pattern := range []string{
		"/run/cluster", "/run/place", "/run/containerd*", "/run/runsc*", "/run/netns*", "/run/cni*",
		"/var/lib/agentcube-test", "/var/lib/cni*", "/var/lib/containerd*", "/var/lib/kubelet*",
		"/var/log/pods", "/var/log/containers", "/etc/cni*", "/etc/containerd*", "/opt/cni*", "/usr/libexec/kube*",
		"/sys/fs/cgroup/" + place, "/sys/fs/cgroup/*/" + place, "/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*",
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if place == "" && strings.HasPrefix(pattern, "/sys/fs/cgroup/") && !strings.Contains(pattern, "kubepods") {
			continue
		}
		for _, name := range names {
			out[name] = "there"
		}
	}
	return out
}
