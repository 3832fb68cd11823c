package chart

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// resources are what the chart makes of a file of values.
func resources(t *testing.T, values string) []unstructured.Unstructured {
	t.Helper()
	return decoded(t, rendered(t, values))
}

func decoded(t *testing.T, text string) []unstructured.Unstructured {
	t.Helper()
	var out []unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var u unstructured.Unstructured
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

func as[T any](t *testing.T, u unstructured.Unstructured) (out T) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestClosed: whatever is set, the Pods of AgentCube may do no more than they need to,
// and its rights are named one by one.
func TestClosed(t *testing.T) {
	each(t, func(t *testing.T, values string) {
		pods := 0
		for _, u := range resources(t, values) {
			switch u.GetKind() {
			case "Deployment":
				pods++
				checkPod(t, u.GetName(), as[appsv1.Deployment](t, u).Spec.Template.Spec)
			case "StatefulSet":
				pods++
				checkPod(t, u.GetName(), as[appsv1.StatefulSet](t, u).Spec.Template.Spec)
			case "Role":
				checkRules(t, u.GetName(), as[rbacv1.Role](t, u).Rules)
			case "ClusterRole":
				checkRules(t, u.GetName(), as[rbacv1.ClusterRole](t, u).Rules)
			}
		}
		if pods < 2 {
			t.Errorf("%d kinds of Pods", pods)
		}
	})
}

func checkPod(t *testing.T, name string, spec corev1.PodSpec) {
	t.Helper()
	if spec.HostNetwork || spec.HostPID || spec.HostIPC || slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil }) {
		t.Errorf("%s has a part of the node", name)
	}
	whole := spec.SecurityContext
	if whole == nil || whole.RunAsNonRoot == nil || !*whole.RunAsNonRoot || whole.SeccompProfile == nil || whole.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s runs as %+v", name, whole)
	}
	if spec.ServiceAccountName == "" && (spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken) {
		t.Errorf("%s has a token of nobody", name)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		own := c.SecurityContext
		if own == nil || own.AllowPrivilegeEscalation == nil || *own.AllowPrivilegeEscalation || own.ReadOnlyRootFilesystem == nil || !*own.ReadOnlyRootFilesystem ||
			own.Capabilities == nil || !slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(own.Capabilities.Add) > 0 ||
			own.Privileged != nil || own.RunAsNonRoot != nil || own.SeccompProfile != nil {
			t.Errorf("container %s of %s runs as %+v", c.Name, name, own)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("container %s of %s takes %+v", c.Name, name, c.Resources)
		}
		if c.LivenessProbe == nil || c.ReadinessProbe == nil {
			t.Errorf("nobody looks after container %s of %s", c.Name, name)
		}
	}
}

func checkRules(t *testing.T, name string, rules []rbacv1.PolicyRule) {
	t.Helper()
	for _, r := range rules {
		if slices.Contains(slices.Concat(r.Verbs, r.Resources, r.APIGroups), "*") || slices.Contains(r.Verbs, "escalate") || slices.Contains(r.Verbs, "bind") || slices.Contains(r.Verbs, "impersonate") {
			t.Errorf("%s allows %+v", name, r)
		}
		if slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "pods/exec") {
			t.Errorf("%s allows %+v", name, r)
		}
	}
}
