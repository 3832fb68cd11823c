package kubetemplate

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/template"
)

// Resources are the resources of both kinds.
func Resources() map[string]schema.GroupVersionResource {
	return map[string]schema.GroupVersionResource{
		api.KindCodeInterpreter: v1alpha1.GroupVersion.WithResource("codeinterpreters"),
		api.KindAgentRuntime:    v1alpha1.GroupVersion.WithResource("agentruntimes"),
	}
}

// Of is a resource as a template; template.Problems when it is not a possible one.
func Of(u *unstructured.Unstructured, defaultImage string) (template.Template, error) {
	u = u.DeepCopy()
	u.SetManagedFields(nil)
	unstructured.RemoveNestedField(u.Object, "status")
	data, err := json.Marshal(u.Object)
	if err != nil {
		return template.Template{}, fmt.Errorf("encode resource: %w", err)
	}
	t, err := template.ParseResource(data, defaultImage)
	if err != nil {
		return t, err
	}
	x := podspec.Extras{Kind: t.Kind, Namespace: t.Namespace, Name: t.Name, Agent: t.AuthMode == template.AuthPicoD, Labels: t.Labels}
	switch t.Kind {
	case api.KindCodeInterpreter:
		var ci v1alpha1.CodeInterpreter
		if err := json.Unmarshal(data, &ci); err != nil {
			return t, fmt.Errorf("decode resource: %w", err)
		}
		codeInterpreter(&x, ci.Spec)
	case api.KindAgentRuntime:
		var ar v1alpha1.AgentRuntime
		if err := json.Unmarshal(data, &ar); err != nil {
			return t, fmt.Errorf("decode resource: %w", err)
		}
		x.Annotations, x.Network, x.Pod = ar.Spec.Template.Annotations, string(ar.Spec.Network), ar.Spec.Template.Spec
	}
	t.Extras = &x
	return t, nil
}

// codeInterpreter is what a CodeInterpreter says of its Pods.
func codeInterpreter(x *podspec.Extras, spec v1alpha1.CodeInterpreterSpec) {
	in := spec.Template
	x.Annotations, x.Network = in.Annotations, string(spec.Network)
	c := corev1.Container{
		Name: podspec.ContainerName, Image: in.Image, ImagePullPolicy: in.ImagePullPolicy,
		Command: in.Command, Args: in.Args, Env: in.Environment, Resources: in.Resources,
	}
	if in.ReadOnlyRootFilesystem {
		c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &in.ReadOnlyRootFilesystem}
	}
	x.Pod = corev1.PodSpec{
		Containers: []corev1.Container{c}, ImagePullSecrets: in.ImagePullSecrets, NodeSelector: in.NodeSelector,
		Tolerations: in.Tolerations, Affinity: in.Affinity, PriorityClassName: in.PriorityClassName,
	}
	if in.RuntimeClassName != nil && *in.RuntimeClassName != "" {
		x.Pod.RuntimeClassName = in.RuntimeClassName
	}
}
