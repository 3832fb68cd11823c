// Package smoke tests that the cluster which other tests run on is a Kubernetes,
// and that nothing of it is left when it has stopped. `make test-kubernetes` runs
// it.
package smoke
