// Package kube is the sandbox driver for Kubernetes: a sandbox is a Pod.
//
// It rebuilds nothing of what Kubernetes does. Pods are scheduled, pulled, limited,
// isolated and restarted by it; what a Pod looks like is in package podspec. A Pod
// that waits in a pool, which is a ReplicaSet that somebody else keeps, becomes a
// sandbox by taking the pool's label off and putting the sandbox's id on: the
// ReplicaSet lets go of it and makes another. Who takes off the label first has it,
// however many managers there are. When none waits, a Pod is made.
//
// All that the driver knows, it knows from watching Pods: nothing is polled, and to
// find or reach a sandbox asks no API server. It keeps no state of its own, so that
// any number of drivers can look after the same Pods.
//
// Kubernetes cannot freeze or copy a running Pod: the driver is no sandbox.Sleeper and
// no sandbox.Copier.
package kube
