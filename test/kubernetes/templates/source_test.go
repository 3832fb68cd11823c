package templates

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/template"
)

// guard is how long a test waits for something that must happen at all.
const guard = time.Minute

// place is a namespace of a test, and how it writes resources there.
type place struct {
	t         *testing.T
	namespace string
}

func newPlace(t *testing.T) place {
	t.Helper()
	namespaces := server.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	made, err := namespaces.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"generateName": "t-"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return place{t, made.GetName()}
}

func (p place) resource(kind string) dynamic.ResourceInterface {
	return server.client.Resource(kubetemplate.Resources()[kind]).Namespace(p.namespace)
}

// put makes a resource, or changes it, as kubectl apply does.
func (p place) put(kind, name, spec string) {
	p.t.Helper()
	u := &unstructured.Unstructured{}
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", v1alpha1.GroupVersion, kind, name, spec)
	if err := yaml.UnmarshalStrict([]byte(text), &u.Object); err != nil {
		p.t.Fatal(err)
	}
	options := metav1.ApplyOptions{FieldManager: "test", Force: true}
	if _, err := p.resource(kind).Apply(p.t.Context(), name, u, options); err != nil {
		p.t.Fatal(err)
	}
}

func (p place) delete(kind, name string) {
	p.t.Helper()
	if err := p.resource(kind).Delete(p.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

func open(t *testing.T, client dynamic.Interface, namespace string) *kubetemplate.Source {
	t.Helper()
	s := kubetemplate.New(kubetemplate.Config{Client: client, Namespace: namespace, DefaultImage: "default-image"})
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	if err := s.Open(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// await waits until a source has a template as it should be, or has it not.
func (p place) await(s *kubetemplate.Source, kind, name string, as func(template.Template, error) bool) {
	p.t.Helper()
	for end := time.Now().Add(guard); ; time.Sleep(5 * time.Millisecond) {
		got, err := s.Get(kind, p.namespace, name)
		if as(got, err) {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s %s is %+v, %v", kind, name, got, err)
		}
	}
}

func image(want string) func(template.Template, error) bool {
	return func(got template.Template, err error) bool { return err == nil && got.Image == want }
}

func gone(_ template.Template, err error) bool {
	var missing *template.NotFoundError
	return errors.As(err, &missing)
}

const (
	interpreter = "CodeInterpreter"
	agent       = "AgentRuntime"
)

// TestSourceFollows: what is written in the cluster is what sessions are made from.
func TestSourceFollows(t *testing.T) {
	p := newPlace(t)
	p.put(interpreter, "before", "{template: {image: one}}")
	s := open(t, server.client, "")
	if got, err := s.Get(interpreter, p.namespace, "before"); err != nil || got.Image != "one" {
		t.Errorf("once it is open, the source has %+v, %v", got, err)
	}

	p.put(interpreter, "python", "{template: {image: one, environment: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}}")
	p.await(s, interpreter, "python", image("one"))
	got, err := s.Get(interpreter, p.namespace, "python")
	if err != nil {
		t.Fatal(err)
	}
	x, ok := got.Extras.(*podspec.Extras)
	if !ok || x.Namespace != p.namespace || x.Pod.Containers[0].Env[0].ValueFrom.FieldRef.FieldPath != "metadata.name" {
		t.Errorf("extras are %+v", got.Extras)
	}
	if got.IdleTimeout != 15*time.Minute || got.MaxDuration != 8*time.Hour {
		t.Errorf("defaults are %v and %v", got.IdleTimeout, got.MaxDuration)
	}

	p.put(interpreter, "python", "{template: {runAsRoot: true}}")
	p.await(s, interpreter, "python", image("default-image"))

	// The API server lets pass what no session can be made from.
	p.put(interpreter, "python", "{template: {image: two, command: [python3]}}")
	p.await(s, interpreter, "python", gone)
	p.put(interpreter, "python", "{template: {image: two, command: [picod]}}")
	p.await(s, interpreter, "python", image("two"))

	// The same name, of another kind.
	p.put(agent, "python", "{targetPort: [{port: 8080, protocol: HTTP}], podTemplate: {spec: {containers: [{name: c, image: three}]}}}")
	p.await(s, agent, "python", image("three"))
	p.delete(interpreter, "python")
	p.await(s, interpreter, "python", gone)
	if got, err := s.Get(agent, p.namespace, "python"); err != nil || got.Image != "three" {
		t.Errorf("the other kind is %+v, %v", got, err)
	}
	if n := len(s.List()); n != 2 {
		t.Errorf("%d templates are listed, want the agent and the one of before", n)
	}
}

// TestSourceOfOneNamespace: what is elsewhere is not there.
func TestSourceOfOneNamespace(t *testing.T) {
	here, elsewhere := newPlace(t), newPlace(t)
	elsewhere.put(interpreter, "a", "{template: {image: x}}")
	here.put(interpreter, "a", "{template: {image: z}}")
	s := open(t, server.client, here.namespace)
	if list := s.List(); len(list) != 1 || list[0].Namespace != here.namespace {
		t.Errorf("listed are %+v", list)
	}
	if got, err := s.Get(interpreter, elsewhere.namespace, "a"); !gone(got, err) {
		t.Errorf("elsewhere there is %+v, %v", got, err)
	}
}

// TestSourceOutage: while the API server is away, what was known stays; afterwards all
// is known that happened meanwhile.
func TestSourceOutage(t *testing.T) {
	p := newPlace(t)
	p.put(interpreter, "kept", "{template: {image: one}}")
	p.put(interpreter, "changed", "{template: {image: one}}")
	p.put(interpreter, "deleted", "{template: {image: one}}")
	g, client := openGate(t)
	s := open(t, client, p.namespace)

	g.close()
	p.put(interpreter, "changed", "{template: {image: two}}")
	p.put(interpreter, "made", "{template: {image: two}}")
	p.delete(interpreter, "deleted")
	for _, name := range []string{"kept", "changed", "deleted"} {
		if got, err := s.Get(interpreter, p.namespace, name); err != nil || got.Image != "one" {
			t.Errorf("while the server is away, %s is %+v, %v", name, got, err)
		}
	}

	g.open()
	p.await(s, interpreter, "changed", image("two"))
	p.await(s, interpreter, "made", image("two"))
	p.await(s, interpreter, "deleted", gone)
	p.await(s, interpreter, "kept", image("one"))
}

// TestSourceGivesUp: Open ends with its context, and leaves nothing.
func TestSourceGivesUp(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	g, client := openGate(t)
	g.close()
	s := kubetemplate.New(kubetemplate.Config{Client: client})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v, want that time was up", err)
	}
	s.Close() // again
	g.end()
}

// TestSourceCloses: what was known stays.
func TestSourceCloses(t *testing.T) {
	p := newPlace(t)
	p.put(interpreter, "a", "{template: {image: x}}")
	s := open(t, server.client, p.namespace)
	s.Close()
	if got, err := s.Get(interpreter, p.namespace, "a"); err != nil || got.Image != "x" {
		t.Errorf("after Close the source has %+v, %v", got, err)
	}
}
