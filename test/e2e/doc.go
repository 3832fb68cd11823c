// Package e2e holds the end-to-end tests: they drive the real agentcube binary,
// which makes real gVisor sandboxes, through the public Go client, the Python
// SDK, the command line and plain HTTP. `make test-e2e` runs them; they need
// root, as agentcube does.
//
// Most tests share one server. Those that stop or kill a server, or count what
// is left on the machine, start one of their own. All servers begin with the
// same image, which is imported once.
//
// Tests that need nothing but an AgentCube to talk to are named by [Anywhere]: they run
// on a cluster, too, as a part of `make test-kubernetes`.
package e2e
