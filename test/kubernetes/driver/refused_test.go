package driver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestRefused: a sandbox that cannot be had is refused for the reason that Kubernetes
// has, and nothing of it stays.
func TestRefused(t *testing.T) {
	root, yes, broken := int64(0), true, "broken"
	for name, test := range map[string]struct {
		change func(*sandbox.Spec, *podspec.Extras)
		want   error
		says   string
	}{
		"no room": {func(s *sandbox.Spec, _ *podspec.Extras) { s.Resources.CPUMillis = 1000_000 }, sandbox.ErrFull, "Insufficient cpu"},
		"no such node": {func(_ *sandbox.Spec, x *podspec.Extras) { x.Pod.NodeSelector = map[string]string{"no": "such"} },
			sandbox.ErrFull, "didn't match Pod's node affinity/selector"},
		"no such runtime class": {func(_ *sandbox.Spec, x *podspec.Extras) { x.Pod.RuntimeClassName = &broken }, sandbox.ErrBadTemplate, `"broken" not found`},
		"no such priority class": {func(_ *sandbox.Spec, x *podspec.Extras) { x.Pod.PriorityClassName = "none" }, sandbox.ErrBadTemplate,
			"no PriorityClass with name none"},
		"root that must not be": {func(_ *sandbox.Spec, x *podspec.Extras) {
			x.Pod.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &root, RunAsNonRoot: &yes}
		}, sandbox.ErrBadTemplate, "non-root"},
		"no such secret": {func(_ *sandbox.Spec, x *podspec.Extras) {
			from := &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "k"}
			x.Pod.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: from}}}
		}, sandbox.ErrBadTemplate, `secret "none" not found`},
		"no such program": {func(s *sandbox.Spec, x *podspec.Extras) { s.Command, x.Agent = []string{"/none"}, false }, sandbox.ErrBadTemplate, "/none"},
		"no such image":   {func(s *sandbox.Spec, _ *podspec.Extras) { s.Image = "Not A Reference" }, sandbox.ErrNoImage, "InvalidImageName"},
		"elsewhere":       {func(_ *sandbox.Spec, x *podspec.Extras) { x.Namespace = "default" }, sandbox.ErrInvalidSpec, "default"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t, nil)
			d := openDriver(t, kube.Config{Namespace: ns, PendingTimeout: time.Second})
			spec, x := newSpec(t, ns, "")
			test.change(&spec, x)
			wantRefused(t, d, spec, test.want, test.says)
			wantNoPods(t, ns)
		})
	}
}

func wantRefused(t *testing.T, d *kube.Driver, spec sandbox.Spec, want error, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	_, err := d.Create(ctx, spec)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
		t.Errorf("Create = %v, want %q that says %q", err, want, says)
	}
	t.Log(err)
}

// wantNoPods: no Pod is left but such as are ending.
func wantNoPods(t *testing.T, namespace string) {
	t.Helper()
	list, err := node.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			t.Errorf("Pod %s is left", p.Name)
		}
	}
}

// TestQuota: who has used up a quota is told at once.
func TestQuota(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	useUp(t, ns)
	d := openDriver(t, kube.Config{Namespace: ns, PendingTimeout: guard})
	spec, _ := newSpec(t, ns, "")
	wantRefused(t, d, spec, sandbox.ErrFull, "exceeded quota")
	wantNoPods(t, ns)
}

// useUp lets a namespace have no Pods.
func useUp(t *testing.T, namespace string) {
	t.Helper()
	quotas := node.client.CoreV1().ResourceQuotas(namespace)
	if _, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the quota", func() bool {
		q, err := quotas.Get(t.Context(), "none", metav1.GetOptions{})
		return err == nil && len(q.Status.Hard) > 0
	})
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(guard); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestNoHandler: a node that cannot start a Pod says so in an event alone.
func TestNoHandler(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	classes := node.client.NodeV1().RuntimeClasses()
	if _, err := classes.Create(t.Context(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: ns}, Handler: "unknown"}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := classes.Delete(context.Background(), ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	d := openDriver(t, kube.Config{Namespace: ns})
	spec, _ := newSpec(t, ns, ns)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() { // until Kubernetes has said it
		for {
			events, err := node.client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreatePodSandBox"})
			if ctx.Err() != nil || err == nil && len(events.Items) > 0 {
				cancel(nil)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	_, err := d.Create(ctx, spec)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `no runtime for "unknown" is configured`) {
		t.Errorf("Create = %v, want why its Pod did not start", err)
	}
	wantNoPods(t, ns)
}

// TestRestrictedNamespace: the sandboxes of CodeInterpreters are let in where
// Kubernetes is strictest, and those whose user is root are not.
func TestRestrictedNamespace(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	d := openDriver(t, kube.Config{Namespace: ns})
	spec, _ := newSpec(t, ns, "")
	s := lock(t, d, create(t, d, spec))
	if code, out, err := s.run("id -u"); err != nil || code != 0 || strings.TrimSpace(out) != "1000" {
		t.Errorf("user is %q, %d, %v, want 1000", out, code, err)
	}
	spec, _ = newSpec(t, ns, "")
	spec.RunAsRoot = true
	wantRefused(t, d, spec, sandbox.ErrBadTemplate, "violates PodSecurity")
}

// TestDeletedWhileStarting: a Pod that no node has is gone as soon as it is deleted.
func TestDeletedWhileStarting(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	d := openDriver(t, kube.Config{Namespace: ns, PendingTimeout: guard})
	spec, _ := newSpec(t, ns, "")
	spec.Resources.CPUMillis = 1000_000
	go func() {
		for t.Context().Err() == nil {
			if err := node.client.CoreV1().Pods(ns).Delete(context.Background(), spec.ID, metav1.DeleteOptions{}); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	wantRefused(t, d, spec, sandbox.ErrNotRunning, "deleted while it started")
	wantNoPods(t, ns)
}
