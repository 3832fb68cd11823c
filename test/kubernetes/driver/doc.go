// Package driver runs the suite of all sandbox drivers on the one for Kubernetes, on a
// node with real Pods: once with runc and once with gVisor.
package driver
