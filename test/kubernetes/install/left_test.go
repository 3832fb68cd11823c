package install

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// left: when all sessions are over no sandbox is there and no record of one that lives;
// with the templates go the pools, and with the release all that it has made but for
// the keys.
func (w *world) left(t *testing.T, tokens ...string) {
	await(t, "no sandboxes", func() (bool, error) {
		for _, p := range w.sandboxes(t) {
			if p.Labels[podspec.LabelSandbox] != "" {
				return false, errors.New(p.Name + " is left")
			}
		}
		return true, nil
	})
	for _, token := range tokens {
		c := w.as(t, token)
		living := []api.State{api.StatePending, api.StateRunning, api.StatePaused}
		page, err := c.ListSessions(t.Context(), client.ListOptions{States: living})
		if err != nil || len(page.Sessions) > 0 {
			t.Errorf("there are the sessions %+v, %v", page.Sessions, err)
		}
		c.Close()
	}
	for _, resource := range kubetemplate.Resources() {
		all := w.dynamic.Resource(resource).Namespace("default")
		if err := all.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "no pools", func() (bool, error) {
		sets, err := w.client.AppsV1().ReplicaSets("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		pods := w.sandboxes(t)
		return len(sets.Items)+len(pods) == 0, fmt.Errorf("%d ReplicaSets and %d Pods are left", len(sets.Items), len(pods))
	})
	cmd := exec.CommandContext(t.Context(), places.helm, "uninstall", release, "--kubeconfig", w.Kubeconfig,
		"--namespace", release, "--wait", "--timeout", patience.String())
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("helm uninstall: %v\n%s", err, out)
	}
	ours := metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=agentcube"}
	await(t, "nothing of the release", func() (bool, error) {
		ctx, core := t.Context(), w.client.CoreV1()
		pods, err1 := core.Pods(release).List(ctx, metav1.ListOptions{})
		services, err2 := core.Services(release).List(ctx, ours)
		roles, err3 := w.client.RbacV1().ClusterRoles().List(ctx, ours)
		bindings, err4 := w.client.RbacV1().ClusterRoleBindings().List(ctx, ours)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return false, err
		}
		of := []int{len(pods.Items), len(services.Items), len(roles.Items), len(bindings.Items)}
		return slices.Max(of) == 0, fmt.Errorf("%d Pods, services, cluster roles and bindings are left", of)
	})
	if _, err := w.client.CoreV1().Secrets(release).Get(t.Context(), release+"-keys", metav1.GetOptions{}); err != nil {
		t.Errorf("the keys, without which nobody reaches what lives on: %v", err)
	}
}
