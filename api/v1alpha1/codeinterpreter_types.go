package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AuthMode says who checks the requests to a sandbox.
// +kubebuilder:validation:Enum=picod;none
type AuthMode string

// The modes.
const (
	// AuthModePicoD: PicoD does; every request is signed.
	AuthModePicoD AuthMode = "picod"
	// AuthModeNone: the template's own server does, in its own way.
	AuthModeNone AuthMode = "none"
)

// CodeInterpreter is a template for sessions that run commands and code.
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=codeinterpreters,singular=codeinterpreter,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CodeInterpreter struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec CodeInterpreterSpec `json:"spec"`
	// +optional
	Status CodeInterpreterStatus `json:"status,omitempty"`
}

// CodeInterpreterList is a list of CodeInterpreters.
// +kubebuilder:object:root=true
type CodeInterpreterList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CodeInterpreter `json:"items"`
}

// CodeInterpreterSpec describes the sessions of a CodeInterpreter.
type CodeInterpreterSpec struct {
	// Ports are the ports that the Router carries requests to. None means
	// port 8080, HTTP, every path.
	// +optional
	Ports []TargetPort `json:"ports,omitempty"`
	// Template describes the sandbox.
	Template *CodeInterpreterSandboxTemplate `json:"template"`
	// SessionTimeout is how long a session may go without a request.
	// +optional
	// +kubebuilder:default="15m"
	SessionTimeout *metav1.Duration `json:"sessionTimeout,omitempty"`
	// PauseAfter is how long a session may go without a request until it is
	// paused by itself, to be woken by the next one. It is shorter than
	// SessionTimeout; 0 means that no session is. Added by this version.
	// +optional
	PauseAfter *metav1.Duration `json:"pauseAfter,omitempty"`
	// MaxSessionDuration is the longest life of a session.
	// +optional
	// +kubebuilder:default="8h"
	MaxSessionDuration *metav1.Duration `json:"maxSessionDuration,omitempty"`
	// WarmPoolSize is how many sandboxes are kept ready-made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	WarmPoolSize *int32 `json:"warmPoolSize,omitempty"`
	// AuthMode says who checks the requests to a sandbox.
	// +optional
	// +kubebuilder:default=picod
	AuthMode AuthMode `json:"authMode,omitempty"`
	// NeedInitialization is accepted for manifests that have it and has no
	// effect: whether a sandbox is handed a key follows from AuthMode.
	// +optional
	NeedInitialization *bool `json:"needInitialization,omitempty"`
	// Isolation is the least isolation that a sandbox must have. When it
	// cannot be had, no session is created. Added by this version.
	// +optional
	Isolation Isolation `json:"isolation,omitempty"`
	// Strict sessions are bound to a key of their creator, and every request to one
	// has to be signed for itself: method, path, session and body. Clients that
	// cannot do that are refused. Added by this version.
	// +optional
	Strict bool `json:"strict,omitempty"`
}

// CodeInterpreterSandboxTemplate describes the sandbox of a CodeInterpreter.
type CodeInterpreterSandboxTemplate struct {
	// RuntimeClassName selects the container runtime on Kubernetes; empty is
	// the cluster's default.
	// +optional
	RuntimeClassName *string `json:"runtimeClassName,omitempty"`
	// Labels are put on the sandbox's Pod.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are put on the sandbox's Pod.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Image is the image of the sandbox.
	// +optional
	Image string `json:"image,omitempty"`
	// ImagePullPolicy is as in a Pod.
	// +optional
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// ImagePullSecrets are as in a Pod.
	// +optional
	// +patchMergeKey=name
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=name
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty" patchStrategy:"merge" patchMergeKey:"name"`
	// Environment is added to the environment of what runs in the sandbox.
	// +optional
	Environment []corev1.EnvVar `json:"environment,omitempty"`
	// Command replaces the image's entry point. On one machine, where that is not
	// looked at, it is required with authMode none.
	// +optional
	Command []string `json:"command,omitempty"`
	// Args replace the image's arguments. The flag --workspace=<dir> of PicoD
	// names the working directory of user code.
	// +optional
	Args []string `json:"args,omitempty"`
	// Resources bound the sandbox; the limit ephemeral-storage is its disk.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// RunAsRoot runs user code as root inside the sandbox. Otherwise it is an
	// unprivileged user. Added by this version.
	// +optional
	RunAsRoot bool `json:"runAsRoot,omitempty"`
	// MaxProcesses bounds the processes and threads of user code. Added by
	// this version.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxProcesses *int32 `json:"maxProcesses,omitempty"`
	// Preload are Python modules that user code finds imported already. What
	// cannot be imported is left out. Added by this version.
	// +optional
	// +listType=set
	Preload []string `json:"preload,omitempty"`
}

// CodeInterpreterStatus is what the operator saw last.
type CodeInterpreterStatus struct {
	// Conditions; the type Ready is kept.
	// +optional
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
	// Ready says whether sessions can be created.
	// +optional
	Ready bool `json:"ready,omitempty"`
}
