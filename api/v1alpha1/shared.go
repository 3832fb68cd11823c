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
