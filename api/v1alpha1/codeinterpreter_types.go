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
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.template.image`
// +kubebuilder:printcolumn:name="Pool",type=integer,JSONPath=`.spec.warmPoolSize`,description="sandboxes that are kept ready-made"
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.warmPool.ready`,description="those that are ready now"
// +kubebuilder:printcolumn:name="Claimed",type=integer,JSONPath=`.status.warmPool.claimed`,priority=1
// +kubebuilder:printcolumn:name="Isolation",type=string,JSONPath=`.spec.isolation`,priority=1
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
// +kubebuilder:validation:XValidation:rule=`!has(self.pauseAfter) || !has(self.sessionTimeout) || [self.pauseAfter, self.sessionTimeout].exists(d, !d.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$')) || duration(self.pauseAfter) < duration(self.sessionTimeout)`,message=`must be shorter than sessionTimeout`,fieldPath=`.pauseAfter`
// +kubebuilder:validation:XValidation:rule=`!(has(self.strict) && self.strict && has(self.authMode) && self.authMode == 'none')`,message=`needs authMode picod: without PicoD nothing checks signatures`,fieldPath=`.strict`
// +kubebuilder:validation:XValidation:rule=`!(has(self.template.preload) && size(self.template.preload) > 0 && has(self.authMode) && self.authMode == 'none')`,message=`needs authMode picod: without PicoD nothing imports the modules`,fieldPath=`.template.preload`
type CodeInterpreterSpec struct {
	// Ports are the ports that the Router carries requests to. None means
	// port 8080, HTTP, every path.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:rule=`self.all(p, self.exists_one(q, q.port == p.port && (has(q.pathPrefix) ? q.pathPrefix : '') == (has(p.pathPrefix) ? p.pathPrefix : '')))`,message=`the same port is there twice for the same pathPrefix`
	Ports []TargetPort `json:"ports,omitempty"`
	// Template describes the sandbox.
	Template *CodeInterpreterSandboxTemplate `json:"template"`
	// SessionTimeout is how long a session may go without a request.
	// +optional
	// +kubebuilder:default="15m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$')`,message=`must be a duration such as 90s, 15m or 8h`
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') || duration(self) > duration('0s')`,message=`must be more than 0`
	SessionTimeout *metav1.Duration `json:"sessionTimeout,omitempty"`
	// PauseAfter is how long a session may go without a request until it is
	// paused by itself, to be woken by the next one. It is shorter than
	// SessionTimeout; 0 means that no session is. Added by this version.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$')`,message=`must be a duration such as 90s, 15m or 8h`
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') || duration(self) >= duration('0s')`,message=`must be 0 or more`
	PauseAfter *metav1.Duration `json:"pauseAfter,omitempty"`
	// MaxSessionDuration is the longest life of a session.
	// +optional
	// +kubebuilder:default="8h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$')`,message=`must be a duration such as 90s, 15m or 8h`
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[-+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') || duration(self) > duration('0s')`,message=`must be more than 0`
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
	// Network is what the code in a sandbox may connect to; absent, it is none. On
	// one machine there is nothing else. Added by this version.
	// +optional
	Network Network `json:"network,omitempty"`
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
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule=`self.all(k, !format.qualifiedName().validate(k).hasValue())`,message=`has a name that is not valid for a label`
	Labels map[string]LabelValue `json:"labels,omitempty"`
	// Annotations are put on the sandbox's Pod.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Image is the image of the sandbox.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`!self.matches('[ \\t\\r\\n]')`,message=`is not an image reference`
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
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:XValidation:rule=`self.all(e, size(e.name) > 0)`,message=`has a variable without a name`
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
	// +kubebuilder:validation:XValidation:rule=`!has(self.limits) || ['cpu', 'memory', 'ephemeral-storage'].all(r, !(r in self.limits) || !isQuantity(string(self.limits[r])) || quantity(string(self.limits[r])).isGreaterThan(quantity('0')))`,message=`limits must be more than 0`
	// +kubebuilder:validation:XValidation:rule=`!has(self.requests) || ['cpu', 'memory', 'ephemeral-storage'].all(r, !(r in self.requests) || !isQuantity(string(self.requests[r])) || !quantity(string(self.requests[r])).isLessThan(quantity('0')))`,message=`requests must be 0 or more`
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// RunAsRoot runs user code as root inside the sandbox. Otherwise it is an
	// unprivileged user. Added by this version.
	// +optional
	RunAsRoot bool `json:"runAsRoot,omitempty"`
	// ReadOnlyRootFilesystem lets a sandbox write to its workspace and to /tmp alone. It
	// needs Kubernetes. Added by this version.
	// +optional
	ReadOnlyRootFilesystem bool `json:"readOnlyRootFilesystem,omitempty"`
	// NodeSelector, Tolerations, Affinity and PriorityClassName are as in a Pod, and
	// have no effect on one machine. Added by this version.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// MaxProcesses bounds the processes and threads of user code. Added by
	// this version.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxProcesses *int32 `json:"maxProcesses,omitempty"`
	// Preload are Python modules that user code finds imported already. What
	// cannot be imported is left out. Added by this version.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$')`,message=`must be the name of a Python module`
	Preload []string `json:"preload,omitempty"`
}

// CodeInterpreterStatus is what the operator saw last.
type CodeInterpreterStatus struct {
	// Conditions are Ready and Failing.
	// +optional
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
	// Ready says whether sessions can be created, as the condition Ready does.
	// +optional
	Ready bool `json:"ready,omitempty"`
	// ObservedGeneration is that of the spec which the rest speaks of. While it is
	// not the resource's own generation, a change has not been looked at.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// WarmPool counts sandboxes that are made ahead of sessions. It is absent
	// where none are asked for and none are left.
	// +optional
	WarmPool *WarmPoolStatus `json:"warmPool,omitempty"`
}

// WarmPoolStatus counts the sandboxes of a warm pool. Each number is written even
// when it is 0, which is not the same as not known.
type WarmPoolStatus struct {
	// Wanted is how many there are to be, from warmPoolSize of the generation that
	// was observed.
	// +kubebuilder:validation:Minimum=0
	Wanted int32 `json:"wanted"`
	// Ready is how many wait, fit to be claimed.
	// +kubebuilder:validation:Minimum=0
	Ready int32 `json:"ready"`
	// Claimed is how many sandboxes that came from the pool serve sessions now.
	// +kubebuilder:validation:Minimum=0
	Claimed int32 `json:"claimed"`
}
