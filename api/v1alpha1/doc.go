// Package v1alpha1 holds the resources that sessions are made from:
// CodeInterpreter and AgentRuntime of the group runtime.agentcube.volcano.sh.
//
// The same YAML is a custom resource on Kubernetes and a file on a single
// machine. Manifests written for earlier versions of AgentCube are valid as they
// are; the fields that were added since are optional and say so.
//
// +kubebuilder:object:generate=true
// +groupName=runtime.agentcube.volcano.sh
package v1alpha1

import "k8s.io/apimachinery/pkg/runtime/schema"

// GroupVersion is the API group and version of the resources.
var GroupVersion = schema.GroupVersion{Group: "runtime.agentcube.volcano.sh", Version: "v1alpha1"}
