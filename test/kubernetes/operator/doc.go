// Package operator runs the operator on a real API server, with the controllers that
// keep ReplicaSets and collect garbage. There is no node: the tests say of Pods what a
// kubelet would.
package operator
