// Package templates tests that templates are found in a real Kubernetes: on an API
// server that has the custom resources, and through times when it is away.
package templates
