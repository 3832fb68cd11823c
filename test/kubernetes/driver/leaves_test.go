package driver

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestLeavesNothing: of a driver and its sandboxes nothing is left, in the cluster or
// in the process, whether somebody reads its exits or not.
func TestLeavesNothing(t *testing.T) {
	ns := newNamespace(t, nil) // by a connection to the API server that stays
	none := goleak.IgnoreCurrent()
	d, err := kube.New(kube.Config{
		Client: node.client, Namespace: ns, Pods: podSettings(), Callers: podspec.Callers{Namespace: "n", Labels: map[string]string{"a": "b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	for range 2 {
		spec, _ := newSpec(t, ns, "")
		if _, err := d.Create(ctx, spec); err != nil {
			t.Fatal(err)
		}
		if err := end(ctx, ns, spec.ID); err != nil {
			t.Fatal(err)
		}
		await(t, "the sandbox to end", func() bool {
			got, err := d.Get(ctx, spec.ID)
			return err == nil && got.Exit != nil
		})
		if err := d.Delete(ctx, spec.ID); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "no Pod to be left", func() bool {
		list, err := node.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0
	})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	goleak.VerifyNone(t, none)
}

// TestLatency tells how long a cold start takes beside a bare Pod of the same image.
// It holds nothing to a limit: machines differ.
func TestLatency(t *testing.T) {
	for name, class := range runtimes() {
		ns := newNamespace(t, nil)
		d := openDriver(t, kube.Config{Namespace: ns})
		for range 3 {
			bare, steps := bareStart(t, ns, class)
			t.Logf("%s: bare Pod running after %v: %s", name, bare, steps)
			spec, _ := newSpec(t, ns, class)
			follow := followPod(t, ns, spec.ID)
			began := time.Now()
			create(t, d, spec)
			took := time.Since(began)
			t.Logf("%s: sandbox ready after %v: %s", name, took.Round(time.Millisecond), follow(began))
			began = time.Now()
			if err := d.Delete(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: sandbox deleted after %v", name, time.Since(began).Round(time.Millisecond))
		}
	}
}

// bareStart starts a Pod without anything of AgentCube.
func bareStart(t *testing.T, namespace, class string) (time.Duration, string) {
	t.Helper()
	no, grace := false, int64(0)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare-" + time.Now().Format("150405.000000")}, Spec: corev1.PodSpec{
		AutomountServiceAccountToken: &no, TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{Name: "c", Image: pythonImage, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "1000"}}},
	}}
	if class != "" {
		pod.Spec.RuntimeClassName = &class
	}
	follow := followPod(t, namespace, pod.Name)
	began := time.Now()
	pods := node.client.CoreV1().Pods(namespace)
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "a bare Pod", func() bool {
		p, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodRunning
	})
	took := time.Since(began)
	steps := follow(began)
	if err := pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	return took.Round(time.Millisecond), steps
}

// followPod watches a Pod; what it returns tells when each step was seen.
func followPod(t *testing.T, namespace, name string) func(began time.Time) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w, err := node.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	type step struct {
		what string
		at   time.Time
	}
	var steps []step
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			what := "made"
			switch {
			case running(p.Status.ContainerStatuses):
				what = "running"
			case ended(p.Status.InitContainerStatuses):
				what = "init ended"
			case running(p.Status.InitContainerStatuses):
				what = "init running"
			case p.Status.PodIP != "":
				what = "address"
			case p.Spec.NodeName != "":
				what = "scheduled"
			}
			if len(steps) == 0 || steps[len(steps)-1].what != what {
				steps = append(steps, step{what, time.Now()})
			}
		}
	}()
	return func(began time.Time) string {
		cancel()
		w.Stop()
		<-done
		var out string
		for _, s := range steps {
			out += s.what + " " + s.at.Sub(began).Round(time.Millisecond).String() + ", "
		}
		return out
	}
}

func running(all []corev1.ContainerStatus) bool { return len(all) > 0 && all[0].State.Running != nil }

func ended(all []corev1.ContainerStatus) bool { return len(all) > 0 && all[0].State.Terminated != nil }
