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
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.podTemplate.spec.containers[0].image`
// +kubebuilder:printcolumn:name="Isolation",type=string,JSONPath=`.spec.isolation`,priority=1
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
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:rule=`self.all(p, self.exists_one(q, q.port == p.port && (has(q.pathPrefix) ? q.pathPrefix : '') == (has(p.pathPrefix) ? p.pathPrefix : '')))`,message=`the same port is there twice for the same pathPrefix`
	Ports []TargetPort `json:"targetPort"`
	// Template is the Pod that serves a session.
	Template *SandboxTemplate `json:"podTemplate"`
	// SessionTimeout is how long a session may go without a request.
	// +kubebuilder:default="15m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$')`,message=`must be a duration such as 90s, 15m or 8h`
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') || duration(self) > duration('0s')`,message=`must be more than 0`
	SessionTimeout *metav1.Duration `json:"sessionTimeout"`
	// MaxSessionDuration is the longest life of a session.
	// +kubebuilder:default="8h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$')`,message=`must be a duration such as 90s, 15m or 8h`
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') || duration(self) > duration('0s')`,message=`must be more than 0`
	MaxSessionDuration *metav1.Duration `json:"maxSessionDuration"`
	// Isolation is the least isolation that a sandbox must have. When it
	// cannot be had, no session is created. Added by this version.
	// +optional
	Isolation Isolation `json:"isolation,omitempty"`
	// Network is what the code in a sandbox may connect to; absent, it is none. On
	// one machine there is nothing else. Added by this version.
	// +optional
	Network Network `json:"network,omitempty"`
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
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule=`self.all(k, !format.qualifiedName().validate(k).hasValue())`,message=`has a name that is not valid for a label`
	Labels map[string]LabelValue `json:"labels,omitempty"`
	// Annotations are put on the Pod.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Spec is the Pod's.
	// +kubebuilder:validation:XValidation:rule=`size(self.containers) > 0`,message=`has no container`,fieldPath=`.containers`
	// +kubebuilder:validation:XValidation:rule=`self.containers.all(c, has(c.image) && size(c.image) > 0)`,message=`a container has no image`,fieldPath=`.containers`
	Spec corev1.PodSpec `json:"spec"`
}

// AgentRuntimeStatus is what the operator saw last.
type AgentRuntimeStatus struct {
	// Conditions are Ready and Failing.
	// +optional
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
	// ObservedGeneration is that of the spec which the rest speaks of. While it is
	// not the resource's own generation, a change has not been looked at.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}
