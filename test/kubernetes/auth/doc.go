// Package auth tests on a real API server who is known by the token of a service
// account, and what Roles let callers do. `make test-kubernetes` runs it.
package auth
