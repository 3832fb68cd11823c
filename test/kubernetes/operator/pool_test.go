package operator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestPool: a pool is made, filled, told of, made larger, smaller, and removed.
func TestPool(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 3)
	// Without a node, nothing says that it is.
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isReady(st) && isFailing(st, operator.ReasonUnschedulable, "no nodes") && hasPool(st, 3, 0, 0)
	})
	set := s.theSet()
	pool := set.Labels[podspec.LabelPool]
	if set.Name != "a-"+pool || !metav1.IsControlledBy(set, ci) || len(ci.Finalizers) > 0 {
		t.Errorf("ReplicaSet %s of %v, pool %q, finalizers %v", set.Name, set.OwnerReferences, pool, ci.Finalizers)
	}
	for _, p := range s.pods() {
		probe := p.Spec.Containers[0].ReadinessProbe
		if p.Labels[podspec.LabelPool] != pool || p.Labels[podspec.LabelTemplate] != "a" || p.Labels[podspec.LabelKind] != api.KindCodeInterpreter ||
			p.Spec.RestartPolicy != corev1.RestartPolicyAlways || probe == nil || probe.HTTPGet.Path != "/health" || probe.PeriodSeconds != 1 {
			t.Errorf("Pod %s has labels %v and probe %v", p.Name, p.Labels, probe)
		}
	}
	s.kubelet(isPod)
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && isFine(st) && hasPool(st, 3, 3, 0) })
	for _, size := range []int32{5, 1} {
		edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = &size })
		s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isFine(st) && hasPool(st, size, size, 0) })
	}
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = nil })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && isFine(st) && st.WarmPool == nil })
	if sets, pods := s.sets(), s.pods(); len(sets)+len(pods) > 0 {
		t.Errorf("%d ReplicaSets and %d Pods are left", len(sets), len(pods))
	}
}

// TestQuiet: nothing is written where nothing has changed.
func TestQuiet(t *testing.T) {
	s := newSpace(t)
	s.kubelet(isPod)
	s.operate()
	ci := s.interpreter("a", 2)
	full := func(st v1alpha1.CodeInterpreterStatus) bool { return isFine(st) && hasPool(st, 2, 2, 0) }
	s.status(ci, full)
	set := s.theSet()
	before := ci.ResourceVersion
	// Something of it changes that is no matter, and of Pods that are: each is looked at.
	s.touch(ci)
	for _, p := range s.pods(waiting()) {
		s.touch(&p)
	}
	touched := ci.ResourceVersion
	// Another is made later, and looked at later.
	other := s.interpreter("b", 1)
	s.status(other, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 1, 1, 0) })
	s.status(ci, full)
	if ci.ResourceVersion != touched || before == touched {
		t.Errorf("the resource was %s, %s after it was touched, and is %s", before, touched, ci.ResourceVersion)
	}
	for _, now := range s.sets() {
		if now.Name == set.Name && now.Generation != 1 {
			t.Errorf("the ReplicaSet is of generation %d", now.Generation)
		}
	}
}

// TestRoll: a template that changes has another pool, and the old one stays until that
// is filled. What was taken from the old one stays.
func TestRoll(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 2)
	old := s.theSet()
	s.fill(ci, old, 2)
	tk := s.taker()
	tk.catchUp(s)
	if _, err := tk.take(s, "a", "taken"); err != nil {
		t.Fatal(err)
	}
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 2, 1, 1) })
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.Template.Image = "agentcube.test/python:2" })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 2, 0, 1) })
	var now *appsv1.ReplicaSet
	s.until(func() string {
		all := s.sets()
		i := slices.IndexFunc(all, func(set appsv1.ReplicaSet) bool { return set.UID != old.UID })
		if len(all) != 2 || i < 0 {
			return "there are two ReplicaSets"
		}
		now = &all[i]
		return ""
	})
	if image := now.Spec.Template.Spec.Containers[0].Image; image != "agentcube.test/python:2" {
		t.Errorf("the new pool has image %s", image)
	}
	s.fill(ci, now, 1)
	if len(s.sets()) != 2 {
		t.Error("the old pool has gone before the new one was filled")
	}
	s.fill(ci, now, 2)
	if set := s.theSet(); set.UID != now.UID {
		t.Error("the new pool has gone")
	}
	s.until(func() string {
		if n := len(s.pods(waiting())); n != 2 {
			return fmt.Sprintf("there are %d Pods that wait", n)
		}
		return ""
	})
	if left := s.pods(client.HasLabels{podspec.LabelSandbox}); len(left) != 1 || len(left[0].OwnerReferences) > 0 {
		t.Errorf("of the sandbox there is %v", left)
	}
	// A change that is not one of Pods is none of the pool.
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.Strict = true })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 2, 2, 1) })
	if set := s.theSet(); set.UID != now.UID || set.Generation != now.Generation {
		t.Error("the pool was changed")
	}
}

// fill makes n Pods of a ReplicaSet ready, and waits until the status says so.
func (s space) fill(ci *v1alpha1.CodeInterpreter, set *appsv1.ReplicaSet, n int32) {
	s.Helper()
	s.until(func() string {
		pods := s.pods(client.MatchingLabels{podspec.LabelPool: set.Labels[podspec.LabelPool]})
		if len(pods) < int(n) {
			return "there are enough Pods"
		}
		slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
		for i := range pods[:n] {
			s.must(s.runs(&pods[i]))
		}
		return ""
	})
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return st.WarmPool != nil && st.WarmPool.Ready == n })
}

// TestSmaller: a pool becomes smaller by another ReplicaSet that takes its place, as one
// that is made smaller would delete Pods by name, with what has taken them just now.
func TestSmaller(t *testing.T) {
	s := newSpace(t)
	all, err := kubernetes.NewForConfig(world.config)
	s.must(err)
	changes, err := all.AppsV1().ReplicaSets(s.name).Watch(t.Context(), metav1.ListOptions{})
	s.must(err)
	defer changes.Stop()
	s.kubelet(isPod)
	s.operate()
	ci := s.interpreter("a", 6)
	tk := s.taker()
	taken := map[string]string{} // UIDs of Pods, by the sandboxes that they are
	claimed := int32(0)
	for i, size := range []int32{6, 4, 2, 5, 3, 1} {
		s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
			return st.WarmPool != nil && st.WarmPool.Ready == st.WarmPool.Wanted
		})
		tk.catchUp(s)
		edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = &size })
		id := fmt.Sprintf("taken-%d", i)
		sb, err := tk.take(s, "a", id)
		s.must(err)
		taken[id] = sb.AgentID
		claimed++
		s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
			return isFine(st) && hasPool(st, size, size, claimed)
		})
		if set := s.theSet(); *set.Spec.Replicas != size {
			t.Errorf("the pool has %d places, want %d", *set.Spec.Replicas, size)
		}
	}
	for _, p := range s.pods(client.HasLabels{podspec.LabelSandbox}) {
		if id := p.Labels[podspec.LabelSandbox]; taken[id] == string(p.UID) {
			delete(taken, id)
		}
	}
	if len(taken) > 0 {
		t.Errorf("lost with the pool: %v", taken)
	}
	s.must(world.client.Delete(t.Context(), ci))
	places := map[types.UID]int32{}
	for e := range changes.ResultChan() {
		set := e.Object.(*appsv1.ReplicaSet)
		if *set.Spec.Replicas < places[set.UID] {
			t.Errorf("ReplicaSet %s had %d places, and has %d", set.Name, places[set.UID], *set.Spec.Replicas)
		}
		places[set.UID] = *set.Spec.Replicas
		if e.Type == watch.Deleted && *set.Spec.Replicas == 1 {
			break
		}
	}
	if len(places) != 5 {
		t.Errorf("there were %d ReplicaSets, want 5", len(places))
	}
}

// TestRollImpatient: a pool that does not get filled does not keep the old one for ever.
func TestRollImpatient(t *testing.T) {
	s := newSpace(t)
	s.operate(func(cfg *operator.Config) { cfg.Patience = 1 })
	ci := s.interpreter("a", 1)
	old := s.theSet()
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.Template.Image = "agentcube.test/none:1" })
	s.until(func() string {
		if all := s.sets(); len(all) != 1 || all[0].UID == old.UID {
			return "there is only the new ReplicaSet"
		}
		return ""
	})
}

// TestRepaired: what others change of a ReplicaSet is put right, whatever it is, and
// one that they delete is made again.
func TestRepaired(t *testing.T) {
	s := newSpace(t)
	s.operate(func(cfg *operator.Config) { cfg.Patience = 1 })
	s.interpreter("a", 2)
	want := s.theSet()
	for name, change := range map[string]func(*appsv1.ReplicaSet){
		"less":   func(set *appsv1.ReplicaSet) { n := int32(1); set.Spec.Replicas = &n },
		"more":   func(set *appsv1.ReplicaSet) { n := int32(7); set.Spec.Replicas = &n },
		"lost":   func(set *appsv1.ReplicaSet) { n := int32(7); set.Spec.Replicas, set.Labels = &n, nil },
		"image":  func(set *appsv1.ReplicaSet) { set.Spec.Template.Spec.Containers[0].Image = "agentcube.test/other:1" },
		"root":   func(set *appsv1.ReplicaSet) { *set.Spec.Template.Spec.SecurityContext.RunAsNonRoot = false },
		"labels": func(set *appsv1.ReplicaSet) { set.Labels = nil },
		"owner":  func(set *appsv1.ReplicaSet) { set.OwnerReferences = nil },
	} {
		edit(s, s.theSet(), change)
		s.until(func() string {
			return cmp.Diff(
				[]any{want.Spec, want.Labels, want.OwnerReferences},
				[]any{s.theSet().Spec, s.theSet().Labels, s.theSet().OwnerReferences})
		})
		t.Logf("%s was put right", name)
	}
	want = s.theSet()
	s.must(world.client.Delete(t.Context(), want, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	s.until(func() string {
		if set := s.theSet(); set.UID == want.UID {
			return "there is another ReplicaSet"
		}
		return ""
	})
}

// TestDeleted: with a CodeInterpreter goes its pool, and not what was taken from it. One
// of the same name has a pool of its own at once.
func TestDeleted(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 2)
	old := s.theSet()
	s.fill(ci, old, 2)
	tk := s.taker()
	tk.catchUp(s)
	taken, err := tk.take(s, "a", "taken")
	if err != nil {
		t.Fatal(err)
	}
	s.must(world.client.Delete(t.Context(), ci, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	again := s.interpreter("a", 1)
	s.until(func() string {
		if set := s.theSet(); !metav1.IsControlledBy(set, again) {
			return "the ReplicaSet is of the new one"
		}
		return ""
	})
	s.until(func() string {
		for _, p := range s.pods(waiting()) {
			if metav1.IsControlledBy(&p, old) {
				return "the old Pods are gone"
			}
		}
		return ""
	})
	if left := s.pods(client.HasLabels{podspec.LabelSandbox}); len(left) != 1 || string(left[0].UID) != taken.AgentID {
		t.Errorf("of the sandbox there is %v", left)
	}
	// The sandbox still counts.
	s.status(again, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 1, 0, 1) })
	if err := tk.driver.Delete(t.Context(), "taken"); err != nil {
		t.Fatal(err)
	}
	s.status(again, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 1, 0, 0) })
}

// TestLongName: names of all lengths have pools, and are told of.
func TestLongName(t *testing.T) {
	s := newSpace(t)
	s.kubelet(isPod)
	s.operate()
	for _, name := range []string{strings.Repeat("a", 253), strings.Repeat("b", 23) + ".b", strings.Repeat("c", 63)} {
		ci := s.interpreter(name, 1)
		s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && hasPool(st, 1, 1, 0) })
	}
}

// touch changes something of an object that means nothing.
func (s space) touch(o client.Object) {
	s.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": {"example.com/touched": "yes"}}}`))
	s.must(world.client.Patch(s.Context(), o, patch))
}
