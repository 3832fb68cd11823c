package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
)

// small is what each Pod of these tests asks for: many have to fit on one node.
func small() object {
	return object{"requests": object{"cpu": "10m", "memory": "32Mi"}, "limits": object{"cpu": "1", "memory": "256Mi"}}
}

// figures measures how long a session takes to be there, from a pool and without, one
// at a time and twenty, beside a bare Pod of the same image. What is logged is for
// docs/benchmarks.md; nothing is asserted but that it works.
func (w *world) figures(t *testing.T, token string) {
	const most = 20
	c := w.as(t, token)
	w.template(t, "default", "cold", object{"template": object{"resources": small()}})
	w.template(t, "default", "warm", object{"warmPoolSize": most, "template": object{"resources": small()}})
	key, err := client.NewKey() // which takes as long as a warm session
	if err != nil {
		t.Fatal(err)
	}
	session := func(template string) func(context.Context) (func(), error) {
		return func(ctx context.Context) (func(), error) {
			s, err := c.CreateSession(ctx, client.CreateOptions{Template: template, Key: key})
			if err != nil {
				return nil, err
			}
			return func() { w.remove(t, c, s.ID) }, nil
		}
	}
	for _, together := range []int{1, most} {
		for _, figure := range []struct {
			name string
			make func(context.Context) (func(), error)
		}{{"bare Pod", w.barePod}, {"cold session", session("cold")}, {"warm session", session("warm")}} {
			if figure.name == "warm session" {
				w.awaitPool(t, "warm", most)
			}
			took := w.measure(t, together, figure.make)
			t.Logf("%-12s %2d at a time: p50 %4d ms, slowest %4d ms", figure.name, together,
				took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds())
		}
	}
}

// measure makes as many of something at once, and the same again until there are ten
// figures, and removes them.
func (w *world) measure(t *testing.T, together int, do func(context.Context) (func(), error)) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	for len(took) < max(10, together) {
		var wg sync.WaitGroup
		var remove []func()
		for range together {
			wg.Go(func() {
				began := time.Now()
				undo, err := do(t.Context())
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				took = append(took, time.Since(began))
				remove = append(remove, undo)
			})
		}
		wg.Wait()
		for _, undo := range remove {
			wg.Go(undo)
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	slices.Sort(took)
	return took
}

// barePod runs the same image with nothing of AgentCube, until it is ready.
func (w *world) barePod(ctx context.Context) (remove func(), err error) {
	pods, second := w.client.CoreV1().Pods("default"), int64(1)
	made, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "bare-"},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &second, Containers: []corev1.Container{{
			Name: "main", Image: pythonImage, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "600"},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
			}},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	watch, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + made.Name, ResourceVersion: made.ResourceVersion})
	if err != nil {
		return nil, err
	}
	defer watch.Stop()
	for e := range watch.ResultChan() {
		p, ok := e.Object.(*corev1.Pod)
		if ok && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			return func() { _ = pods.Delete(context.Background(), made.Name, metav1.DeleteOptions{}) }, nil
		}
	}
	return nil, errors.New("the watch has ended")
}

// awaitPool waits until so many Pods wait for sessions, as the template's status says.
func (w *world) awaitPool(t *testing.T, name string, ready int64) {
	t.Helper()
	await(t, fmt.Sprintf("%d Pods in the pool", ready), func() (bool, error) {
		u, err := w.dynamic.Resource(kubetemplate.Resources()[api.KindCodeInterpreter]).Namespace("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		n, _, err := unstructured.NestedInt64(u.Object, "status", "warmPool", "ready")
		return n == ready, errors.Join(err, fmt.Errorf("%d are ready: %v", n, u.Object["status"]))
	})
}
