package podspec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Labels of the Pods of sandboxes.
const (
	// LabelManagedBy and LabelComponent tell them from all other Pods.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	LabelComponent = "app.kubernetes.io/component"
	// LabelSandbox is the id of the sandbox that the Pod is; one that waits in a pool
	// has none.
	LabelSandbox = "agentcube.volcano.sh/sandbox"
	// LabelPool is on Pods that wait in a pool, and says which it is.
	LabelPool = "agentcube.volcano.sh/pool"
	// LabelFromPool is on Pods that have come from one: the same.
	LabelFromPool = "agentcube.volcano.sh/from-pool"
	// LabelTemplate and LabelKind name the resource that the Pod is made from. A name
	// that is too long for a label is shortened, and ends with a digest.
	LabelTemplate = "agentcube.volcano.sh/template"
	LabelKind     = "agentcube.volcano.sh/kind"
	// LabelHome is the namespace of the AgentCube that the Pod belongs to: there is one
	// in a namespace, and several may have sandboxes in the same ones.
	LabelHome = "agentcube.volcano.sh/home"
	// LabelNetwork is what the policies look at: "none", "internet" or "all".
	LabelNetwork = "agentcube.volcano.sh/network"

	// By these people have found the Pods of sessions before.
	labelSession  = "runtime.agentcube.io/session-id"
	labelWorkload = "runtime.agentcube.io/workload-name"
	labelName     = "runtime.agentcube.io/sandbox-name"
	labelManager  = "managed-by"
)

// Values of LabelManagedBy and LabelComponent.
const (
	ManagedBy = "agentcube"
	Component = "sandbox"
)

// Annotations of the Pods of sandboxes.
const (
	// AnnotationLabels holds Spec.Labels, which need not be valid as labels.
	AnnotationLabels = "agentcube.volcano.sh/labels"
	// AnnotationRestarts is how often the container of a Pod from a pool had been
	// restarted when it was taken: one more ends the sandbox.
	AnnotationRestarts = "agentcube.volcano.sh/restarts"
	// AnnotationIsolation, on a RuntimeClass, says what it isolates by, where its
	// handler's name does not.
	AnnotationIsolation = "agentcube.volcano.sh/isolation"

	annotationEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict"
)

// What is named like this is AgentCube's alone.
const (
	ownPrefix    = "agentcube.volcano.sh/"
	formerPrefix = "runtime.agentcube.io/"
)

// sessionOfLabels is where the Workload Manager puts the session into Spec.Labels.
const sessionOfLabels = "agentcube.volcano.sh/session-id"

// Selector matches the Pods of all sandboxes, those in pools too, of the AgentCube in
// the namespace home; "" is one that shares the cluster with no other.
func Selector(home string) map[string]string {
	out := map[string]string{LabelManagedBy: ManagedBy, LabelComponent: Component}
	if home != "" {
		out[LabelHome] = home
	}
	return out
}

// MadeFrom are the labels that say which resource a Pod is made from.
func MadeFrom(kind, name string) map[string]string {
	return map[string]string{LabelKind: kind, LabelTemplate: labelValue(name)}
}

// Own are the labels and annotations that make a Pod, named podName, the sandbox with
// this id. labels are Spec.Labels.
func Own(id, podName string, labels map[string]string) (own, annotations map[string]string, err error) {
	text, err := json.Marshal(labels)
	if err != nil {
		return nil, nil, fmt.Errorf("encode labels: %w", err)
	}
	own = map[string]string{LabelSandbox: id, labelName: labelValue(podName)}
	if session := labels[sessionOfLabels]; session != "" {
		own[labelSession] = labelValue(session)
	}
	return own, map[string]string{AnnotationLabels: string(text), annotationEvict: "false"}, nil
}

// foreign are the labels or annotations of a template that have no meaning here. With
// one that has, a template could pass its Pods off as the sandboxes of others.
func foreign(all map[string]string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(name, _ string) bool {
		return strings.HasPrefix(name, ownPrefix) || strings.HasPrefix(name, formerPrefix) ||
			name == LabelManagedBy || name == LabelComponent || name == labelManager
	})
	return out
}

// Pool is the name of the pool whose Pods are made from a template: it tells
// templates apart by their content.
func Pool(t corev1.PodTemplateSpec) (string, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode Pod template: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}

// labelValue makes a name fit for a label.
func labelValue(name string) string { return shorten(name, 63) }

// shorten keeps a name within a length, and different from others that begin like it.
func shorten(name string, longest int) string {
	if len(name) <= longest {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:4])
	return name[:longest-len(digest)-1] + "-" + digest
}
