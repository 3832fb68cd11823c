package operator

import (
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestClaims: of Pods that wait, each is taken once, however many try at the same time;
// who gets none makes one. The pool fills up again.
func TestClaims(t *testing.T) {
	const takers, each, size = 8, 5, 10
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", size)
	set := s.theSet()
	s.fill(ci, set, size)
	ready := map[string]bool{} // by UID
	for _, p := range s.pods(waiting()) {
		ready[string(p.UID)] = true
	}
	s.kubelet(isCold) // the pool does not fill up meanwhile
	var all [takers]taker
	for i := range all {
		all[i] = s.taker()
		all[i].catchUp(s)
	}
	var mu sync.Mutex
	made := map[string]string{} // the sandbox that a Pod is, by UID
	var wg sync.WaitGroup
	for i, tk := range all {
		for j := range each {
			wg.Go(func() {
				id := fmt.Sprintf("s-%d-%d", i, j)
				sb, err := tk.take(s, "a", id)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other := made[sb.AgentID]; other != "" {
					t.Errorf("%s and %s are the same Pod", other, id)
				}
				made[sb.AgentID] = id
			})
		}
	}
	wg.Wait()
	taken := 0
	for uid := range made {
		if ready[uid] {
			taken++
		}
	}
	if len(made) != takers*each || taken != size {
		t.Errorf("%d sandboxes, of which %d have waited; want %d and %d", len(made), taken, takers*each, size)
	}
	for _, p := range s.pods(client.HasLabels{podspec.LabelSandbox}) {
		if id := made[string(p.UID)]; id != p.Labels[podspec.LabelSandbox] || len(p.OwnerReferences) > 0 {
			t.Errorf("Pod %s is sandbox %q and of %v; its taker has %q", p.Name, p.Labels[podspec.LabelSandbox], p.OwnerReferences, id)
		}
	}
	s.fill(ci, set, size)
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isReady(st) && isFine(st) && hasPool(st, size, size, size)
	})
}

// TestClaimThenDelete: a Pod that was taken just before its ReplicaSet is deleted stays:
// there is no moment in which it is taken and still belongs to that.
func TestClaimThenDelete(t *testing.T) {
	s := newSpace(t)
	all, err := kubernetes.NewForConfig(world.config)
	s.must(err)
	changes, err := all.CoreV1().Pods(s.name).Watch(t.Context(), metav1.ListOptions{LabelSelector: podspec.LabelFromPool})
	s.must(err)
	defer changes.Stop()
	s.operate()
	ci := s.interpreter("a", 4)
	tk := s.taker()
	for i := range 5 {
		set := s.theSet()
		s.fill(ci, set, 4)
		tk.catchUp(s)
		id := fmt.Sprintf("taken-%d", i)
		sb, err := tk.take(s, "a", id)
		s.must(err)
		s.must(world.client.Delete(t.Context(), set, client.PropagationPolicy(metav1.DeletePropagationBackground)))
		for e := range changes.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && p.Labels[podspec.LabelSandbox] == id {
				if len(p.OwnerReferences) > 0 {
					t.Errorf("when it was taken, the Pod was of %v", p.OwnerReferences)
				}
				break
			}
		}
		s.until(func() string {
			for _, p := range s.pods(waiting()) {
				if metav1.IsControlledBy(&p, set) {
					return "the Pods that wait are gone"
				}
			}
			return ""
		})
		s.until(func() string {
			if s.theSet().UID == set.UID {
				return "there is another ReplicaSet"
			}
			return ""
		})
		if left := s.pods(client.MatchingLabels{podspec.LabelSandbox: id}); len(left) != 1 || string(left[0].UID) != sb.AgentID ||
			left[0].Status.Phase != corev1.PodRunning {
			t.Errorf("of the sandbox there is %v", left)
		}
	}
}
