package v1alpha1

// Protocol is how a port is spoken to.
// +kubebuilder:validation:Enum=HTTP;HTTPS
type Protocol string

// The protocols.
const (
	ProtocolHTTP  Protocol = "HTTP"
	ProtocolHTTPS Protocol = "HTTPS"
)

// TargetPort is a port of a sandbox that the Router carries requests to.
type TargetPort struct {
	// PathPrefix selects the port: it gets the requests whose invocation path
	// begins with it. Empty means every path. The longest match wins.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule=`self == '' || self.startsWith('/')`,message=`must begin with a slash`
	PathPrefix string `json:"pathPrefix,omitempty"`
	// Name is for people.
	// +optional
	Name string `json:"name,omitempty"`
	// Port is the TCP port inside the sandbox.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// Protocol is HTTP or HTTPS.
	// +kubebuilder:default=HTTP
	Protocol Protocol `json:"protocol"`
}

// LabelValue is the value of a label. It is a type so that its length is bounded,
// without which an API server does not let a rule look at what is in it.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule=`!format.labelValue().validate(self).hasValue()`,message=`is not valid for a label`
type LabelValue string

// Isolation is what separates a sandbox from its host, from the weakest to
// the strongest: "none", "runc", "gvisor", "kata".
// +kubebuilder:validation:Enum=none;runc;gvisor;kata
type Isolation string

// The isolations.
const (
	IsolationNone   Isolation = "none"
	IsolationRunc   Isolation = "runc"
	IsolationGVisor Isolation = "gvisor"
	IsolationKata   Isolation = "kata"
)

// Network is what the code in a sandbox may connect to, from the least to the most:
// "none", "internet", "all".
// +kubebuilder:validation:Enum=none;internet;all
type Network string

// The networks.
const (
	// NetworkNone: nothing but the sandbox itself.
	NetworkNone Network = "none"
	// NetworkInternet: public addresses and the cluster's DNS; no Pods, services,
	// nodes or other private addresses.
	NetworkInternet Network = "internet"
	// NetworkAll: whatever a Pod reaches without a policy.
	NetworkAll Network = "all"
)

// The conditions of a resource.
const (
	// ConditionReady: sessions can be created.
	ConditionReady = "Ready"
	// ConditionFailing is true from when something that the resource asks for could
	// not be done, such as making a sandbox, until it could. Its message is the last
	// error. A resource can be ready and failing: sandboxes wait, but no more come.
	ConditionFailing = "Failing"
)

// ReasonReconciled is the reason of a condition Ready that is true: what the
// resource asks for is there.
const ReasonReconciled = "Reconciled"
