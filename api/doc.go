// Package api holds what programs outside AgentCube program against: the JSON
// requests and responses of the control plane, and the stable error codes.
//
// openapi.yaml beside this file describes the native session API; the paths
// that older clients use are described there too. Types of the CodeInterpreter
// and AgentRuntime resources are in v1alpha1.
//
// The package has no dependency outside the standard library, so that a client
// of AgentCube does not inherit the server's dependencies.
package api
