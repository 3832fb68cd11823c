package kubetemplate_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/template"
)

func object(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func of(t *testing.T, manifest string) (template.Template, *podspec.Extras) {
	t.Helper()
	u := object(t, manifest)
	before := u.DeepCopy()
	got, err := kubetemplate.Of(u, "default-image")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Object, u.Object); diff != "" {
		t.Errorf("Of changed the resource:\n%s", diff)
	}
	return got, got.Extras.(*podspec.Extras)
}

func manifest(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../../api/v1alpha1/testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestCodeInterpreter: the manifest that has everything that clients wrote before us.
func TestCodeInterpreter(t *testing.T) {
	got, x := of(t, manifest(t, "codeinterpreter.yaml"))
	if got.Workspace != "/root" || got.Image != "picod:latest" || got.WarmPoolSize != 2 || got.Origin != "CodeInterpreter b/a" ||
		got.IdleTimeout != 15*time.Minute || got.MaxDuration != 8*time.Hour || got.Env != nil || got.AuthMode != template.AuthPicoD {
		t.Errorf("template is %+v", got)
	}
	class := "kuasar-vmm"
	want := &podspec.Extras{
		Kind: "CodeInterpreter", Namespace: "b", Name: "a", Agent: true,
		Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"note": "text"},
		Pod: corev1.PodSpec{RuntimeClassName: &class, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}}},
	}
	c := x.Pod.Containers[0]
	x.Pod.Containers = nil
	if diff := cmp.Diff(want, x); diff != "" {
		t.Errorf("extras (-want +got):\n%s", diff)
	}
	if c.Image != "picod:latest" || c.ImagePullPolicy != corev1.PullIfNotPresent || len(c.Env) != 1 || c.Env[0].Value != "b" ||
		c.Resources.Limits.Cpu().String() != "500m" || c.Resources.Requests.Cpu().String() != "100m" || c.SecurityContext != nil {
		t.Errorf("container is %+v", c)
	}
}

func TestAgentRuntime(t *testing.T) {
	got, x := of(t, manifest(t, "agentruntime.yaml"))
	if got.Namespace != "default" || got.Ports[0].Protocol != "HTTPS" || got.AuthMode != template.AuthNone || len(got.Command) > 0 {
		t.Errorf("template is %+v", got)
	}
	if x.Agent || x.Kind != "AgentRuntime" || x.Namespace != "default" || x.Labels["app"] != "a" || x.Annotations["note"] != "text" ||
		len(x.Pod.Containers) != 1 || x.Pod.Containers[0].Image != "x" {
		t.Errorf("extras are %+v", x)
	}
}

const head = "apiVersion: runtime.agentcube.volcano.sh/v1alpha1\nmetadata: {name: a, namespace: b}\nstatus: {}\n"

// TestOf: what else manifests say.
func TestOf(t *testing.T) {
	for name, test := range map[string]struct {
		manifest string
		check    func(template.Template, *podspec.Extras) bool
	}{
		"workspace is the whole image": {"kind: CodeInterpreter\nspec: {template: {image: x, args: [--workspace=/]}}",
			func(got template.Template, _ *podspec.Extras) bool { return got.Workspace == "/" }},
		"no image": {"kind: CodeInterpreter\nspec: {template: {}}",
			func(got template.Template, _ *podspec.Extras) bool { return got.Image == "default-image" }},
		"no runtime class": {`kind: CodeInterpreter
spec: {template: {image: x, runtimeClassName: ""}}`,
			func(_ template.Template, x *podspec.Extras) bool { return x.Pod.RuntimeClassName == nil }},
		"no agent": {"kind: CodeInterpreter\nspec: {authMode: none, template: {image: x, args: [serve]}}",
			func(got template.Template, x *podspec.Extras) bool {
				return !x.Agent && got.AuthMode == template.AuthNone && x.Pod.Containers[0].Args[0] == "serve"
			}},
		"network": {"kind: CodeInterpreter\nspec: {network: internet, template: {image: x}}",
			func(_ template.Template, x *podspec.Extras) bool { return x.Network == "internet" }},
		"network of an agent": {"kind: AgentRuntime\nspec: {network: all, targetPort: [{port: 1, protocol: HTTP}], podTemplate: {spec: {containers: [{name: c, image: x}]}}}",
			func(_ template.Template, x *podspec.Extras) bool { return x.Network == "all" }},
		"read-only root": {"kind: CodeInterpreter\nspec: {template: {image: x, readOnlyRootFilesystem: true}}",
			func(_ template.Template, x *podspec.Extras) bool {
				return *x.Pod.Containers[0].SecurityContext.ReadOnlyRootFilesystem
			}},
		"placement": {"kind: CodeInterpreter\nspec: {template: {image: x, nodeSelector: {a: b}, priorityClassName: low, tolerations: [{key: k}], affinity: {nodeAffinity: {}}}}",
			func(_ template.Template, x *podspec.Extras) bool {
				return x.Pod.NodeSelector["a"] == "b" && x.Pod.PriorityClassName == "low" && len(x.Pod.Tolerations) == 1 && x.Pod.Affinity.NodeAffinity != nil
			}},
		"value from": {"kind: CodeInterpreter\nspec: {template: {image: x, environment: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}}",
			func(got template.Template, x *podspec.Extras) bool {
				return got.Env == nil && x.Pod.Containers[0].Env[0].ValueFrom.SecretKeyRef.Name == "s"
			}},
		"a root agent": {"kind: AgentRuntime\nspec: {targetPort: [{port: 1, protocol: HTTP}], podTemplate: {spec: {securityContext: {runAsUser: 0}, containers: [{name: c, image: x}]}}}",
			func(got template.Template, _ *podspec.Extras) bool { return got.RunAsRoot }},
	} {
		t.Run(name, func(t *testing.T) {
			if got, x := of(t, head+test.manifest); !test.check(got, x) {
				t.Errorf("template is %+v, extras are %+v", got, x)
			}
		})
	}
}

// TestManagedFields: what only the API server wrote is not looked at, however odd.
func TestManagedFields(t *testing.T) {
	u := object(t, head+"kind: CodeInterpreter\nspec: {template: {image: x}}")
	u.Object["status"] = map[string]any{"no": "such field"}
	u.Object["metadata"].(map[string]any)["managedFields"] = []any{map[string]any{"fieldsV1": map[string]any{"f:spec": map[string]any{}}}}
	if _, err := kubetemplate.Of(u, ""); err != nil {
		t.Error(err)
	}
}

func TestOfRefuses(t *testing.T) {
	for name, test := range map[string]struct{ manifest, want string }{
		"another kind":    {"kind: Pod\nspec: {}", "kind: must be CodeInterpreter or AgentRuntime"},
		"no template":     {"kind: CodeInterpreter\nspec: {}", "spec.template: is missing"},
		"own command":     {"kind: CodeInterpreter\nspec: {template: {image: x, command: [python3]}}", "the first process is PicoD"},
		"no container":    {"kind: AgentRuntime\nspec: {targetPort: [{port: 1, protocol: HTTP}], podTemplate: {spec: {}}}", "containers: is missing"},
		"unknown setting": {"kind: CodeInterpreter\nspec: {template: {image: x, privileged: true}}", "there is no such field"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubetemplate.Of(object(t, head+test.manifest), "")
			var problems template.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), problems[0].File) {
				t.Errorf("error is %v, want Problems that say %q", err, test.want)
			}
		})
	}
}
