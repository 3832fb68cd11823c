// Package crd tests the custom resource definitions in deploy/chart/crds on a real API
// server: what it takes, what it refuses and how it says so, and where that differs
// from how the same file is read on one machine. `make test-kubernetes` runs it.
package crd
