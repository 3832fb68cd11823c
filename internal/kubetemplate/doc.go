// Package kubetemplate finds templates in a cluster: the custom resources
// CodeInterpreter and AgentRuntime.
//
// Of turns one resource into a template, with the podspec.Extras that the driver for
// Kubernetes makes Pods from. A Source watches all of them and is a template.Source.
package kubetemplate
