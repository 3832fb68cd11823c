package operator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// guard is how long anything may take before a test is told that it will not happen.
const guard = 90 * time.Second

// space is a namespace, and who works in it.
type space struct {
	*testing.T
	name string
}

// newSpace makes a namespace for a test. It stays: nobody looks at it afterwards.
func newSpace(t *testing.T) space {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	if err := world.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return space{t, ns.Name}
}

// operate runs an operator for the namespace alone, until the test ends.
func (s space) operate(change ...func(*operator.Config)) *operator.Operator {
	s.Helper()
	cfg := operatorConfig(world.config, world.log.With("test", s.Name()))
	cfg.Namespace = s.name
	for _, c := range change {
		c(&cfg)
	}
	o := operator.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.Error(err)
		}
	})
	return o
}

// until waits for something to be so; it is given what is not so yet.
func (s space) until(so func() (not string)) {
	s.Helper()
	for end := time.Now().Add(guard); ; time.Sleep(20 * time.Millisecond) {
		not := so()
		if not == "" {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("never: %s", not)
		}
	}
}

func (s space) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// interpreter makes a CodeInterpreter.
func (s space) interpreter(name string, pool int32, change ...func(*v1alpha1.CodeInterpreter)) *v1alpha1.CodeInterpreter {
	s.Helper()
	ci := &v1alpha1.CodeInterpreter{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: name},
		Spec: v1alpha1.CodeInterpreterSpec{
			Template: &v1alpha1.CodeInterpreterSandboxTemplate{Image: "agentcube.test/python:1"}, WarmPoolSize: &pool,
		},
	}
	for _, c := range change {
		c(ci)
	}
	s.must(world.client.Create(s.Context(), ci))
	return ci
}

// edit changes a resource, whatever others write meanwhile.
func edit[T client.Object](s space, o T, change func(T)) {
	s.Helper()
	s.until(func() string {
		s.must(world.client.Get(s.Context(), client.ObjectKeyFromObject(o), o))
		change(o)
		if err := world.client.Update(s.Context(), o); err != nil {
			return err.Error()
		}
		return ""
	})
}

// status waits for one that is of the last generation and as it has to be.
func (s space) status(ci *v1alpha1.CodeInterpreter, so func(v1alpha1.CodeInterpreterStatus) bool) {
	s.Helper()
	s.until(func() string {
		s.must(world.client.Get(s.Context(), client.ObjectKeyFromObject(ci), ci))
		if ci.Status.ObservedGeneration == ci.Generation && so(ci.Status) {
			return ""
		}
		text, err := json.Marshal(ci.Status)
		s.must(err)
		return "the status is " + string(text)
	})
}

// condition is one of a resource; it is empty where there is none.
func condition(conditions []metav1.Condition, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func isReady(st v1alpha1.CodeInterpreterStatus) bool {
	c := condition(st.Conditions, v1alpha1.ConditionReady)
	return st.Ready && c.Status == metav1.ConditionTrue && c.Reason == v1alpha1.ReasonReconciled && c.Message == "CodeInterpreter is ready"
}

func isUnready(st v1alpha1.CodeInterpreterStatus, reason, message string) bool {
	c := condition(st.Conditions, v1alpha1.ConditionReady)
	return !st.Ready && c.Status == metav1.ConditionFalse && c.Reason == reason && strings.Contains(c.Message, message)
}

func isFailing(st v1alpha1.CodeInterpreterStatus, reason, message string) bool {
	c := condition(st.Conditions, v1alpha1.ConditionFailing)
	return c.Status == metav1.ConditionTrue && c.Reason == reason && strings.Contains(c.Message, message)
}

func isFine(st v1alpha1.CodeInterpreterStatus) bool {
	return condition(st.Conditions, v1alpha1.ConditionFailing).Status == metav1.ConditionFalse
}

func hasPool(st v1alpha1.CodeInterpreterStatus, wanted, ready, claimed int32) bool {
	return st.WarmPool != nil && *st.WarmPool == v1alpha1.WarmPoolStatus{Wanted: wanted, Ready: ready, Claimed: claimed}
}

// sets are the ReplicaSets of the namespace.
func (s space) sets() []appsv1.ReplicaSet {
	s.Helper()
	var list appsv1.ReplicaSetList
	s.must(world.client.List(s.Context(), &list, client.InNamespace(s.name)))
	return list.Items
}

// theSet waits for the one ReplicaSet that there is to be.
func (s space) theSet() *appsv1.ReplicaSet {
	s.Helper()
	var out appsv1.ReplicaSet
	s.until(func() string {
		all := s.sets()
		if len(all) != 1 {
			return "there is one ReplicaSet"
		}
		out = all[0]
		return ""
	})
	return &out
}

// pods are those of the namespace that nobody deletes.
func (s space) pods(which ...client.ListOption) []corev1.Pod {
	s.Helper()
	var list corev1.PodList
	s.must(world.client.List(s.Context(), &list, append(which, client.InNamespace(s.name))...))
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

func waiting() client.ListOption { return client.HasLabels{podspec.LabelPool} }

// setStatus writes a part of the status of a Pod, as a kubelet would.
func (s space) setStatus(p *corev1.Pod, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	return client.IgnoreNotFound(world.client.Status().Patch(s.Context(), p.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, patch)))
}

// runs says of a Pod that it runs and is ready.
func (s space) runs(p *corev1.Pod) error {
	return s.setStatus(p, map[string]any{
		"phase": corev1.PodRunning, "podIP": agentAddress, "podIPs": []any{map[string]any{"ip": agentAddress}},
		"conditions": []any{
			map[string]any{"type": corev1.PodReady, "status": "True"}, map[string]any{"type": corev1.PodScheduled, "status": "True", "reason": nil},
		},
		"containerStatuses": []any{map[string]any{
			"name": p.Spec.Containers[0].Name, "ready": true, "restartCount": 0, "image": p.Spec.Containers[0].Image, "imageID": "",
			"state": map[string]any{"running": map[string]any{"startedAt": metav1.Now()}},
		}},
	})
}

func isWaiting(p *corev1.Pod) bool { return p.Labels[podspec.LabelPool] != "" }
func isCold(p *corev1.Pod) bool    { return !isWaiting(p) }
func isPod(*corev1.Pod) bool       { return true }

// kubelet makes Pods of the namespace ready, those that come too, until the test ends.
func (s space) kubelet(which func(*corev1.Pod) bool) {
	s.Helper()
	all, err := kubernetes.NewForConfig(world.config)
	s.must(err)
	w, err := all.CoreV1().Pods(s.name).Watch(s.Context(), metav1.ListOptions{})
	s.must(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && p.DeletionTimestamp == nil && which(p) && !podspec.Ready(p) {
				if err := s.runs(p); err != nil && s.Context().Err() == nil {
					s.Error(err)
				}
			}
		}
	}()
	s.Cleanup(func() {
		w.Stop()
		<-done
	})
}

// taker makes sandboxes as a Workload Manager does, with clients of its own.
type taker struct {
	driver    *kube.Driver
	templates *kubetemplate.Source
}

func (s space) taker() taker {
	s.Helper()
	config := rest.CopyConfig(world.config)
	typed, err := kubernetes.NewForConfig(config)
	s.must(err)
	untyped, err := dynamic.NewForConfig(config)
	s.must(err)
	log := world.log.With("test", s.Name())
	d, err := kube.New(kube.Config{Client: typed, Namespace: s.name, Pods: pods(), Callers: callers(), Logger: log})
	s.must(err)
	s.must(d.Open(s.Context()))
	s.Cleanup(func() {
		if err := d.Close(); err != nil {
			s.Error(err)
		}
	})
	source := kubetemplate.New(kubetemplate.Config{Client: untyped, Namespace: s.name, DefaultImage: "agentcube.test/default:1", Logger: log})
	s.must(source.Open(s.Context()))
	s.Cleanup(source.Close)
	return taker{d, source}
}

// take makes a sandbox from a CodeInterpreter.
func (tk taker) take(s space, name, id string) (sandbox.Sandbox, error) {
	t, err := tk.templates.Get(api.KindCodeInterpreter, s.name, name)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	spec := t.Spec("a key")
	spec.ID = id
	ctx, cancel := context.WithTimeout(s.Context(), guard)
	defer cancel()
	return tk.driver.Create(ctx, spec)
}

// sandboxPod makes a Pod that is a sandbox from the pool of a CodeInterpreter, whoever
// is asked.
func (s space) sandboxPod(of, id string) *corev1.Pod {
	s.Helper()
	labels := podspec.MadeFrom(api.KindCodeInterpreter, of)
	maps.Copy(labels, podspec.Selector(home))
	labels[podspec.LabelSandbox], labels[podspec.LabelFromPool] = id, "pool"
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.name, GenerateName: "now-", Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "agentcube.test/none:1"}}},
	}
	s.must(world.client.Create(s.Context(), p))
	return p
}

// settle waits until an operator has looked at all that has happened to Pods until now.
func (s space) settle() {
	s.Helper()
	ci := s.interpreter("settle", 0)
	p := s.sandboxPod("settle", "settle")
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 0, 0, 1) })
	s.must(world.client.Delete(s.Context(), p))
	s.must(world.client.Delete(s.Context(), ci))
}

// catchUp waits until the driver knows all that has happened to Pods until now: it is
// told in order.
func (tk taker) catchUp(s space) {
	s.Helper()
	id := strings.ToLower(rand.Text())
	p := s.sandboxPod("nothing", id)
	s.until(func() string {
		if _, err := tk.driver.Get(s.Context(), id); err != nil {
			return err.Error()
		}
		return ""
	})
	s.must(world.client.Delete(s.Context(), p))
}
