// Package metrics counts what the planes do, for Prometheus. It alone knows
// Prometheus: a [Metrics] is put around what a plane depends on, the store, the
// driver, the record, and notices what passes; the planes do not know it.
//
// What passes is also where the steps of a trace are, so these are begun here
// (package trace).
//
// Labels have few values, which are known beforehand or are the operator's own:
// never an id, an owner, a path or anything else that a client has sent.
package metrics
