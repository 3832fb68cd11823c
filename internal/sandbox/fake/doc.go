// Package fake makes sandboxes in memory, for tests of the logic around
// drivers.
//
// A Host stands for the machine: it outlives the Driver, as real sandboxes
// outlive the process that made them. A Driver made on a Host that already has
// sandboxes finds them. What answers inside a sandbox is a real http.Handler
// per port, served over in-memory connections.
//
// Failures, delays and exits are injected: Hooks run inside the calls, and
// Host.Exit ends a sandbox from within.
package fake
