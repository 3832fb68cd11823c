// Package otlp sends the steps of traces to an OpenTelemetry collector, by OTLP over
// HTTP. It alone knows OpenTelemetry.
//
// Steps are sent in batches by a goroutine of its own: nothing waits for the
// collector, and what it does not take in time is dropped.
package otlp
