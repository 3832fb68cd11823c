package operator

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/operator"
)

// TestBroken: a template that is not possible says why. Its pool is kept for who mends
// it, and not for ever.
func TestBroken(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 1)
	set := s.theSet()
	args := func(list ...string) func(*v1alpha1.CodeInterpreter) {
		return func(ci *v1alpha1.CodeInterpreter) { ci.Spec.Template.Args = list }
	}
	broken := func(st v1alpha1.CodeInterpreterStatus) bool {
		return isUnready(st, operator.ReasonInvalid, `spec.template.args[0]: "--unknown" is not`) && isFine(st) && hasPool(st, 1, 0, 0)
	}
	edit(s, ci, args("--unknown", "--neither"))
	s.status(ci, broken)
	if c := condition(ci.Status.Conditions, v1alpha1.ConditionReady); !strings.Contains(c.Message, "--neither") || strings.Contains(c.Message, "CodeInterpreter") {
		t.Errorf("the message is %q", c.Message)
	}
	edit(s, ci, args())
	s.status(ci, isReady)
	if s.theSet().UID != set.UID {
		t.Error("the pool was not kept")
	}
	edit(s, ci, args("--unknown"))
	s.status(ci, broken)
	patch := client.MergeFrom(ci.DeepCopy()) // as if it had been so for long
	ci.Status.Conditions[0].LastTransitionTime = metav1.NewTime(time.Now().Add(-time.Hour))
	s.must(world.client.Status().Patch(t.Context(), ci, patch))
	s.until(func() string {
		if len(s.sets())+len(s.pods()) > 0 {
			return "the pool is gone"
		}
		return ""
	})
	edit(s, ci, args("--workspace=/root"))
	s.status(ci, isReady)
	s.theSet()
}

// TestUnsafe: a Pod that could leave its sandbox is refused before anybody makes it,
// where the namespace would let it pass, and one that the namespace refuses is told of.
func TestUnsafe(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ar := &v1alpha1.AgentRuntime{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: "a"},
		Spec: v1alpha1.AgentRuntimeSpec{
			Ports:    []v1alpha1.TargetPort{{Port: 8080, Protocol: v1alpha1.ProtocolHTTP}},
			Template: &v1alpha1.SandboxTemplate{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agentcube.test/agent:1"}}}},
			// As the API server does by default.
			SessionTimeout: &metav1.Duration{Duration: time.Minute}, MaxSessionDuration: &metav1.Duration{Duration: time.Hour},
		},
	}
	s.must(world.client.Create(t.Context(), ar))
	agent := func(status metav1.ConditionStatus, reason, message string) {
		t.Helper()
		s.until(func() string {
			s.must(world.client.Get(t.Context(), client.ObjectKeyFromObject(ar), ar))
			ready, failing := condition(ar.Status.Conditions, v1alpha1.ConditionReady), condition(ar.Status.Conditions, v1alpha1.ConditionFailing)
			if ar.Status.ObservedGeneration == ar.Generation && ready.Status == status && ready.Reason == reason &&
				strings.Contains(ready.Message, message) && failing.Status == metav1.ConditionFalse {
				return ""
			}
			return ready.String() + failing.String()
		})
	}
	agent(metav1.ConditionTrue, v1alpha1.ReasonReconciled, "AgentRuntime is ready")
	edit(s, ar, func(ar *v1alpha1.AgentRuntime) { ar.Spec.Template.Spec.HostNetwork = true })
	agent(metav1.ConditionFalse, operator.ReasonPodRefused, "hostNetwork")
	edit(s, ar, func(ar *v1alpha1.AgentRuntime) { ar.Spec.Template.Spec.HostNetwork = false })
	agent(metav1.ConditionTrue, v1alpha1.ReasonReconciled, "")

	// What this version lets pass, the namespace does not.
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
	label := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`))
	s.must(world.client.Patch(t.Context(), ns, label))
	root := s.interpreter("root", 1, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.Template.RunAsRoot = true })
	s.status(root, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isUnready(st, operator.ReasonPodRefused, "Pod is forbidden: violates PodSecurity") &&
			isFailing(st, operator.ReasonPodRefused, "violates PodSecurity") && hasPool(st, 1, 0, 0)
	})
	user := s.interpreter("user", 1)
	s.status(user, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && len(s.pods()) == 1 })
	// Not even a ReplicaSet can be made of it.
	wrong := s.interpreter("wrong", 1, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.Template.PriorityClassName = "NOT A NAME" })
	s.status(wrong, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isUnready(st, operator.ReasonPodRefused, "priorityClassName") && isFailing(st, operator.ReasonPodRefused, "priorityClassName")
	})
}

// TestRuntimeClass: without its runtime class a template cannot be used, and neither
// with one that isolates too little.
func TestRuntimeClass(t *testing.T) {
	s := newSpace(t)
	s.operate()
	name := "class-" + s.name
	ci := s.interpreter("a", 0, func(ci *v1alpha1.CodeInterpreter) {
		ci.Spec.Template.RuntimeClassName, ci.Spec.Isolation = &name, v1alpha1.IsolationGVisor
	})
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isUnready(st, operator.ReasonNoRuntimeClass, name) && isFine(st)
	})
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: "runc"}
	s.must(world.client.Create(t.Context(), class))
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isUnready(st, operator.ReasonIsolation, `demands isolation "gvisor"; here it is "runc"`)
	})
	s.must(world.client.Delete(t.Context(), class))
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isUnready(st, operator.ReasonNoRuntimeClass, name)
	})
	s.must(world.client.Create(t.Context(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: "runsc"}))
	s.status(ci, isReady)
}

// TestQuota: a quota that is used up is told of, and so is that it is not any more.
func TestQuota(t *testing.T) {
	s := newSpace(t)
	s.kubelet(isPod)
	s.operate()
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: "few"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}},
	}
	s.must(world.client.Create(t.Context(), quota))
	s.until(func() string { // nothing is made before it is known what is used
		s.must(world.client.Get(t.Context(), client.ObjectKeyFromObject(quota), quota))
		if len(quota.Status.Used) == 0 {
			return "the quota is counted"
		}
		return ""
	})
	ci := s.interpreter("a", 3)
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isReady(st) && isFailing(st, operator.ReasonQuota, "Pod is forbidden: exceeded quota: few") && hasPool(st, 3, 2, 0)
	})
	edit(s, quota, func(q *corev1.ResourceQuota) { q.Spec.Hard[corev1.ResourcePods] = resource.MustParse("5") })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && isFine(st) && hasPool(st, 3, 3, 0) })
}

// TestTrouble: what keeps Pods from starting is told, by the words of Kubernetes.
func TestTrouble(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 1)
	s.theSet()
	var pod corev1.Pod
	s.until(func() string {
		if all := s.pods(); len(all) == 1 {
			pod = all[0]
			return ""
		}
		return "there is a Pod"
	})
	says := func(state, last map[string]any) {
		t.Helper()
		status := map[string]any{"name": pod.Spec.Containers[0].Name, "image": "agentcube.test/python:1", "imageID": "", "restartCount": 1, "ready": false, "state": state}
		if last != nil {
			status["lastState"] = last
		}
		s.must(s.setStatus(&pod, map[string]any{
			"phase": corev1.PodPending, "conditions": []any{map[string]any{"type": corev1.PodScheduled, "status": "True", "reason": nil}},
			"containerStatuses": []any{map[string]any{"$patch": "replace"}, status},
		}))
	}
	reason := func(reason, message string) func(v1alpha1.CodeInterpreterStatus) bool {
		return func(st v1alpha1.CodeInterpreterStatus) bool {
			return isReady(st) && isFailing(st, reason, message) && hasPool(st, 1, 0, 0)
		}
	}
	waits := func(reason, message string) map[string]any {
		return map[string]any{"waiting": map[string]any{"reason": reason, "message": message}}
	}
	says(waits("ErrImagePull", "no such image"), nil)
	s.status(ci, reason(operator.ReasonImage, "image agentcube.test/python:1: no such image"))
	// While it waits to try again, nothing is new.
	before := condition(ci.Status.Conditions, v1alpha1.ConditionFailing)
	says(waits("ImagePullBackOff", `Back-off pulling image "agentcube.test/python:1": ErrImagePull: no such image`), nil)
	s.settle()
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return condition(st.Conditions, v1alpha1.ConditionFailing) == before
	})
	says(waits("CreateContainerConfigError", "secret not found"), nil)
	s.status(ci, reason("CreateContainerConfigError", "secret not found"))
	says(waits("ContainerCreating", ""), nil)
	s.status(ci, isFine)
	// Between two crashes it runs, and does not work.
	says(map[string]any{"running": map[string]any{}}, map[string]any{"terminated": map[string]any{"exitCode": 3, "reason": "Error"}})
	s.status(ci, reason("CrashLoopBackOff", "exit code 3"))
	s.must(s.runs(&pod))
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && isFine(st) && hasPool(st, 1, 1, 0) })
}

// TestNoAgent: where PicoD does not run there is no pool, which is told.
func TestNoAgent(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 2, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.AuthMode = v1alpha1.AuthModeNone })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool {
		return isReady(st) && isFailing(st, operator.ReasonNoPool, "authMode none") && hasPool(st, 2, 0, 0)
	})
	if sets := s.sets(); len(sets) > 0 {
		t.Errorf("there is %s", sets[0].Name)
	}
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = nil })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && isFine(st) && st.WarmPool == nil })
}

// TestStatusOfOthers: what somebody else writes into the status does not stay.
func TestStatusOfOthers(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 0)
	s.status(ci, isReady)
	s.until(func() string {
		s.must(world.client.Get(t.Context(), client.ObjectKeyFromObject(ci), ci))
		ci.Status.Ready, ci.Status.ObservedGeneration = false, 0
		ci.Status.WarmPool = &v1alpha1.WarmPoolStatus{Wanted: 7}
		if err := world.client.Status().Update(t.Context(), ci); err != nil {
			return err.Error()
		}
		return ""
	})
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isReady(st) && st.WarmPool == nil })
}

// TestMetrics: what an operator does can be measured.
func TestMetrics(t *testing.T) {
	s := newSpace(t)
	s.operate()
	s.status(s.interpreter("a", 0), isReady)
	s.until(func() string { // it counts when it is done
		families, err := operator.Metrics().Gather()
		s.must(err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if f.GetName() == "controller_runtime_reconcile_total" && l.GetValue() == "codeinterpreter" && m.GetCounter().GetValue() > 0 {
						return ""
					}
				}
			}
		}
		return "the resources that were looked at are counted"
	})
}
