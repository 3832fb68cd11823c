package install

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/client"
)

// audited: the Pods of both planes keep a record of what they do, each one of its own,
// and sandboxes seal theirs.
func (w *world) audited(t *testing.T, token string) {
	c := w.as(t, token)
	encrypted, managed := w.create(t, c, client.CreateOptions{}), w.create(t, c, client.CreateOptions{Managed: true})
	for _, s := range []*client.Session{encrypted, managed} {
		if _, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
		w.remove(t, c, s.ID)
	}
	c.Close() // what has passed through a connection is recorded when that ends
	always := []record.Action{record.SessionCreated, record.SessionEnded}
	for session, want := range map[string][]record.Action{
		encrypted.ID: append(always[:2:2], record.TunnelOpened, record.TunnelClosed, record.SessionSealed),
		managed.ID:   append(always[:2:2], record.Request),
	} {
		await(t, "the record of "+session, func() (bool, error) {
			has := map[record.Action]int{}
			for _, p := range w.parts(t) {
				for line := range strings.Lines(w.inside(t, p, "audit", "export", "--session", session)) {
					var e record.Event
					if err := json.Unmarshal([]byte(line), &e); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
					if e.Action == record.SessionSealed && (e.Seal == nil || e.Seal.Statement == "") {
						t.Errorf("the sandbox has given no statement: %s", line)
					}
					has[e.Action]++
				}
			}
			for _, action := range want {
				if has[action] != 1 {
					return false, fmt.Errorf("there is %v, want one each of %v", has, want)
				}
			}
			return true, nil
		})
	}
	for _, p := range w.parts(t) {
		mustContain(t, "the record of "+p.Name, w.inside(t, p, "audit", "verify"), "Whole:  yes")
	}
}

// parts are the Pods of both planes that run.
func (w *world) parts(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := w.client.CoreV1().Pods(release).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component in (router, workloadmanager)"})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// inside runs a command of AgentCube's in one of its Pods.
func (w *world) inside(t *testing.T, p corev1.Pod, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(places.binaries, "kubectl"),
		append([]string{"--kubeconfig", w.Kubeconfig, "--namespace", p.Namespace, "exec", p.Name, "--", "/agentcube"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s in %s: %v\n%s%s", strings.Join(args, " "), p.Name, err, out, stderr.String())
	}
	return string(out)
}
