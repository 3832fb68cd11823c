// Package trace is what the parts of AgentCube know of traces: which step of which
// trace something is a part of (W3C Trace Context), and how to say that a smaller
// step begins and ends.
//
// It records nothing: a [Tracer] does, such as that of internal/trace/otlp, and
// without one a step costs next to nothing. What a request says of the trace that it
// is part of is read in one place, [From], and believed only as far as it is well
// formed.
//
// Names of steps, and what is noted of them, are of a bounded number and never hold
// what users have sent: no paths, owners, tokens, code or output.
package trace
