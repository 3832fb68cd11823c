// Package template knows what sessions are made from.
//
// A template is written as a CodeInterpreter or AgentRuntime resource, the same
// YAML that Kubernetes takes. [Parse] reads such a file strictly, says of every
// mistake the line and the field, and gives [Template] values, the plain form
// that the control plane works with, with every default filled in. A [Source]
// finds templates by name: [Directory] reads a folder and follows its changes,
// [Set] is a fixed collection, [Shipped] are the templates inside the binary.
//
// # Defaults
//
// Idle time-out 15 min, longest life 8 h, authMode picod, workspace /workspace,
// one port 8080 for every path, 1 CPU, 1 GiB of memory, 2 GiB of disk (the
// resource ephemeral-storage), 256 processes, user code unprivileged.
//
// # The command
//
// With authMode picod the first process is PicoD. Of an AgentRuntime, and of a
// CodeInterpreter with authMode none, it is a server of their own: what they leave
// out of its command is the image's, as on Kubernetes.
package template
