package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AgentRuntime is a template for sessions that run an agent's own server.
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=agentruntimes,singular=agentruntime,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AgentRuntime struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AgentRuntimeSpec `json:"spec"`
	// +optional
	Status AgentRuntimeStatus `json:"status,omitempty"`
}

// AgentRuntimeList is a list of AgentRuntimes.
// +kubebuilder:object:root=true
type AgentRuntimeList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AgentRuntime `json:"items"`
}

// AgentRuntimeSpec describes the sessions of an AgentRuntime.
type AgentRuntimeSpec struct {
	// Ports are the ports that the Router carries requests to.
	Ports []TargetPort `json:"targetPort"`
	// Template is the Pod that serves a session.
	Template *SandboxTemplate `json:"podTemplate"`
	// SessionTimeout is how long a session may go without a request.
	// +kubebuilder:default="15m"
	SessionTimeout *metav1.Duration `json:"sessionTimeout"`
	// MaxSessionDuration is the longest life of a session.
	// +kubebuilder:default="8h"
	MaxSessionDuration *metav1.Duration `json:"maxSessionDuration"`
	// Isolation is the least isolation that a sandbox must have. When it
	// cannot be had, no session is created. Added by this version.
	// +optional
	Isolation Isolation `json:"isolation,omitempty"`
	// MaxProcesses bounds the processes and threads of a sandbox. Added by
	// this version.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxProcesses *int32 `json:"maxProcesses,omitempty"`
}

// SandboxTemplate is a Pod to be made.
type SandboxTemplate struct {
	// Labels are put on the Pod.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are put on the Pod.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Spec is the Pod's.
	Spec corev1.PodSpec `json:"spec"`
}

// AgentRuntimeStatus is what the operator saw last.
type AgentRuntimeStatus struct {
	// Conditions of the resource.
	// +optional
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}
