// Package template knows what sessions are made from.
//
// A template is written as a CodeInterpreter or AgentRuntime resource, the same
// YAML that Kubernetes takes. [Parse] reads such a file strictly and says of
// every mistake the line and the field. [Resolve] turns a resource into a
// [Template], the plain form that the control plane works with, with every
// default filled in. A [Source] finds templates by name: [Directory] reads a
// folder and follows its changes, [Set] is a fixed collection, [Shipped] are
// the templates inside the binary.
package template
