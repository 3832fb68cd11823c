// Package gvisor makes sandboxes on this machine with the gVisor kernel that
// comes with the program.
//
// A sandbox is one process tree: gVisor's sentry, a small program that this one
// carries (see package agent), and its stub processes. gVisor's helpers, and the
// sentry where there is no such program, are this one re-executed (see IsReexec).
// Its root file system is an
// EROFS image, shared read-only by all sandboxes of the image through the page
// cache, under an overlay in the sandbox's memory whose size is limited. PicoD
// comes in through a second, tiny EROFS image mounted at /.agentcube. No gofer
// runs and the sentry has no access to the host's file system.
//
// All sandboxes join one network namespace that has a loopback interface and
// nothing else. Inside, gVisor's own network stack serves loopback only. The
// host reaches a port inside by streams over pipes that PicoD has from its start
// (Dial).
//
// On disk a sandbox is the directory <data>/sandboxes/<id>: record.json, the
// OCI bundle and gVisor's state. The directory is made before the process and
// removed after it, so that Open can find and finish whatever a killed
// AgentCube left behind.
package gvisor
