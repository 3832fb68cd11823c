package driver

import (
	"context"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// makePool keeps Pods for a spec, as the operator does, and waits until they are ready.
func makePool(t *testing.T, namespace string, spec sandbox.Spec, size int32) string {
	t.Helper()
	b, err := podspec.NewBuilder(podSettings())
	if err != nil {
		t.Fatal(err)
	}
	pod, err := b.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := podspec.Pool(pod)
	if err != nil {
		t.Fatal(err)
	}
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "pool"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &size, Template: podspec.Waiting(pod, pool), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{podspec.LabelPool: pool}},
	}}
	if _, err := node.client.AppsV1().ReplicaSets(namespace).Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitPool(t, namespace, size)
	return pool
}

func awaitPool(t *testing.T, namespace string, size int32) {
	t.Helper()
	await(t, "the pool", func() bool {
		got, err := node.client.AppsV1().ReplicaSets(namespace).Get(t.Context(), "pool", metav1.GetOptions{})
		return err == nil && got.Status.Replicas == size && got.Status.ReadyReplicas == size
	})
}

// TestClaim: two managers at once take each Pod of a pool once, and make what is
// missing; what was taken is no longer the pool's.
func TestClaim(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	drivers := [2]*kube.Driver{openDriver(t, kube.Config{Namespace: ns}), openDriver(t, kube.Config{Namespace: ns})}
	spec, _ := newSpec(t, ns, "")
	pool := makePool(t, ns, spec, 2)
	before := map[string]bool{}
	list, err := node.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		before[string(p.UID)] = true
	}

	specs := make([]sandbox.Spec, 3)
	made := make([]sandbox.Sandbox, len(specs))
	var wg sync.WaitGroup
	for i := range specs {
		specs[i], _ = newSpec(t, ns, "")
		specs[i].Labels = map[string]string{"agentcube.volcano.sh/session-id": specs[i].ID}
		wg.Go(func() { made[i] = create(t, drivers[i%2], specs[i]) })
	}
	wg.Wait()
	seen, claimed := map[string]bool{}, 0
	for i, s := range made {
		p := podOf(t, ns, specs[i].ID)
		if seen[s.AgentID] || string(p.UID) != s.AgentID {
			t.Errorf("sandbox %s is Pod %s, of agent %s", s.ID, p.UID, s.AgentID)
		}
		seen[s.AgentID] = true
		if before[s.AgentID] {
			claimed++
			if p.Labels[podspec.LabelFromPool] != pool {
				t.Errorf("labels of a Pod from the pool are %v", p.Labels)
			}
		}
		if len(p.OwnerReferences) > 0 || p.Labels[podspec.LabelPool] != "" {
			t.Errorf("Pod still belongs to its pool: %v, %v", p.OwnerReferences, p.Labels)
		}
		if s.Labels["agentcube.volcano.sh/session-id"] != s.ID || p.Labels["runtime.agentcube.io/session-id"] != s.ID {
			t.Errorf("labels of %s are %v, of its Pod %v", s.ID, s.Labels, p.Labels)
		}
	}
	// The third may have come late enough for a new Pod of the pool.
	if claimed != 2 {
		t.Errorf("%d of 2 Pods of the pool were taken", claimed)
	}
	awaitPool(t, ns, 2) // the ReplicaSet has made others
	// Every manager ends every sandbox.
	for i := range specs {
		if err := drivers[(i+1)%2].Delete(t.Context(), specs[i].ID); err != nil {
			t.Error(err)
		}
	}
	awaitPool(t, ns, 2)
}

// TestClaimedEnds: Pods of a pool are started anew when they end; a sandbox is not.
func TestClaimedEnds(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	d := openDriver(t, kube.Config{Namespace: ns})
	spec, _ := newSpec(t, ns, "")
	makePool(t, ns, spec, 1)
	made := create(t, d, spec)
	if podOf(t, ns, spec.ID).Labels[podspec.LabelFromPool] == "" {
		t.Fatal("the pool was not used")
	}
	s := lock(t, d, made)
	if _, out, err := s.run("echo x > f; cat f"); err != nil || out != "x\n" {
		t.Errorf("run: %q, %v", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	if err := end(ctx, ns, spec.ID); err != nil {
		t.Fatal(err)
	}
	if e := awaitExit(t, d, spec.ID); e.Reason != sandbox.ExitStopped {
		t.Errorf("exit is %+v, want stopped", e)
	}
	await(t, "the container to be started anew", func() bool {
		p, err := findPod(t.Context(), ns, spec.ID)
		return err == nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	got, err := d.Get(t.Context(), spec.ID)
	if err != nil || got.Exit == nil {
		t.Errorf("Get of a sandbox whose container was started anew = %+v, %v, want its exit", got, err)
	}
}

// TestTwoInstallations: of two AgentCubes with sandboxes in one namespace neither sees,
// takes or removes what is the other's.
func TestTwoInstallations(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	one := openDriver(t, kube.Config{Namespace: ns, Pods: podspec.Settings{Home: "one"}})
	two := openDriver(t, kube.Config{Namespace: ns, Pods: podspec.Settings{Home: "two"}})
	spec, _ := newSpec(t, ns, "")
	create(t, one, spec)
	other, _ := newSpec(t, ns, "")
	create(t, two, other)
	if err := two.Delete(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct {
		driver *kube.Driver
		id     string
	}{"one": {one, spec.ID}, "two": {two, other.ID}} {
		await(t, "the list of "+name, func() bool {
			list, err := test.driver.List(t.Context())
			return err == nil && len(list) == 1 && list[0].ID == test.id
		})
	}
	p, err := node.client.CoreV1().Pods(ns).Get(t.Context(), spec.ID, metav1.GetOptions{})
	if err != nil || p.DeletionTimestamp != nil {
		t.Errorf("the other's sandbox is %+v, %v", p.DeletionTimestamp, err)
	}
}
