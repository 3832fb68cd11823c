// Package sandbox is the vocabulary between the control plane and what makes
// sandboxes: a Spec goes in, a Sandbox comes out, a Driver stands between.
//
// A sandbox is one isolated machine that serves one session. It is made from
// an image, runs PicoD as its first process, and is reached by dialling a port
// inside it. Drivers are in the packages below: gvisor makes them on this
// machine, fake in memory for tests of the logic around drivers. Every driver
// passes the suite in sandboxtest.
//
// The package imports the standard library only.
package sandbox
