// Package driver tests the sandbox driver for Kubernetes on a node with real Pods: the
// suite of all drivers and what is Kubernetes' own, with runc and with gVisor.
package driver
