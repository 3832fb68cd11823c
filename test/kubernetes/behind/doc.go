// Package behind tests what the driver for Kubernetes knows on a real API server whose
// news do not reach it. `make test-kubernetes` runs it.
package behind
