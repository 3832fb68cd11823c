// Package bench measures a running AgentCube as its users see it, through the
// public client, and beside each number a reference taken in the same run on the
// same machine: a stock start and a stock restore of the same gVisor, a native
// fork and exec from Python, a plain local HTTP server. Runs of the two take
// turns, so that what slows the machine down slows both.
//
// Run measures the figures of Names. Soak uses sessions at random and checks
// what is in them, Sleepers fills the machine with paused ones. Server is an
// AgentCube of its own for any of these.
package bench
