package driver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// pooled is a namespace with an operator, and whoever takes sandboxes.
type pooled struct {
	t         *testing.T
	namespace string
	resources dynamic.ResourceInterface
	driver    *kube.Driver
	templates *kubetemplate.Source
}

func newPooled(t *testing.T) *pooled {
	t.Helper()
	untyped, err := dynamic.NewForConfig(node.config)
	if err != nil {
		t.Fatal(err)
	}
	p := &pooled{t: t, namespace: newNamespace(t, nil)}
	p.resources = untyped.Resource(kubetemplate.Resources()[api.KindCodeInterpreter]).Namespace(p.namespace)
	log := slog.New(slog.DiscardHandler)
	o := operator.New(operator.Config{
		REST: node.config, Namespace: p.namespace, BootstrapPEM: publicKey(t, bootstrap()), Pods: podSettings(), Logger: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	p.templates = kubetemplate.New(kubetemplate.Config{Client: untyped, Namespace: p.namespace, Logger: log})
	if err := p.templates.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.templates.Close)
	p.driver = openDriver(t, kube.Config{Namespace: p.namespace})
	return p
}

// interpreter makes a CodeInterpreter with a pool.
func (p *pooled) interpreter(name string, size int32) {
	p.t.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1alpha1.CodeInterpreter{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: api.KindCodeInterpreter},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.CodeInterpreterSpec{
			Template:     &v1alpha1.CodeInterpreterSandboxTemplate{Image: pythonImage, ImagePullPolicy: corev1.PullIfNotPresent},
			WarmPoolSize: &size,
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.resources.Create(p.t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

// filled waits until the status of a CodeInterpreter counts so many Pods, and returns
// the UIDs of those that wait.
func (p *pooled) filled(name string, ready, claimed int32) (out []types.UID) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%d Pods to be ready and %d to be claimed", ready, claimed), func() bool {
		u, err := p.resources.Get(p.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			p.t.Fatal(err)
		}
		var ci v1alpha1.CodeInterpreter
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &ci); err != nil {
			p.t.Fatal(err)
		}
		pool := ci.Status.WarmPool
		return ci.Status.Ready && ci.Status.ObservedGeneration == ci.Generation && pool != nil && pool.Ready == ready && pool.Claimed == claimed &&
			p.driver.Waiting()(p.namespace, api.KindCodeInterpreter, name) == int(ready)
	})
	for _, pod := range p.waiting() {
		out = append(out, pod.UID)
	}
	return out
}

func (p *pooled) waiting() []corev1.Pod {
	p.t.Helper()
	list, err := node.client.CoreV1().Pods(p.namespace).List(p.t.Context(), metav1.ListOptions{LabelSelector: podspec.LabelPool})
	if err != nil {
		p.t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
}

// take makes a sandbox, and says how long that took.
func (p *pooled) take(name, id string) (sandbox.Sandbox, time.Duration) {
	p.t.Helper()
	t, err := p.templates.Get(api.KindCodeInterpreter, p.namespace, name)
	if err != nil {
		p.t.Fatal(err)
	}
	spec := t.Spec(publicKey(p.t, bootstrap()))
	spec.ID = id
	began := time.Now()
	made := create(p.t, p.driver, spec)
	return made, time.Since(began)
}

// TestPool: with an operator, whoever needs a sandbox gets one that has waited, another
// takes its place, and a template that changes has another pool.
func TestPool(t *testing.T) {
	p := newPooled(t)
	p.interpreter("cold", 0)
	p.interpreter("warm", 2)
	ready := p.filled("warm", 2, 0)
	for i := range int32(4) {
		made, took := p.take("warm", fmt.Sprintf("warm-%d", i))
		if !slices.Contains(ready, types.UID(made.AgentID)) {
			t.Errorf("sandbox %d is Pod %s; there have waited %v", i, made.AgentID, ready)
		}
		began := time.Now()
		ready = p.filled("warm", 2, i+1)
		t.Logf("one that has waited was there after %v, and its place was filled %v later",
			took.Round(100*time.Microsecond), time.Since(began).Round(time.Millisecond))
		if _, out, err := lock(t, p.driver, made).run("echo works"); err != nil || out != "works\n" {
			t.Errorf("run: %q, %v", out, err)
		}
	}
	for i := range 3 {
		_, took := p.take("cold", fmt.Sprintf("cold-%d", i))
		t.Logf("one that has not was there after %v", took.Round(time.Millisecond))
	}
	patch := []byte(`{"spec": {"template": {"preload": ["json"]}}}`)
	began := time.Now()
	if _, err := p.resources.Patch(t.Context(), "warm", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	p.filled("warm", 2, 4)
	await(t, "only Pods of the new pool to wait", func() bool {
		all := p.waiting()
		return len(all) == 2 && !slices.ContainsFunc(all, func(pod corev1.Pod) bool { return slices.Contains(ready, pod.UID) })
	})
	t.Logf("the pool was another after %v", time.Since(began).Round(time.Millisecond))
	for i := range 4 { // what was taken serves on
		if s, err := p.driver.Get(t.Context(), fmt.Sprintf("warm-%d", i)); err != nil || s.Exit != nil {
			t.Errorf("sandbox %d is %+v, %v", i, s, err)
		}
	}
}
