// Package podspec says what the Pod of a sandbox looks like. It is pure: the same
// input gives the same Pod, on every replica, so that whoever keeps Pods ready and
// whoever takes one mean the same.
//
// Build makes a Pod's template from a sandbox.Spec and the Extras that only
// Kubernetes knows, and locks it down; Policies are the network policies that go
// with it; Pool is the name by which Pods of one template find each other.
package podspec
