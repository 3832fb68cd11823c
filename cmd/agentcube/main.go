// Command agentcube is all of AgentCube in one program: the server, and the
// command line that uses it. Run `agentcube help`.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/volcano-sh/agentcube/internal/cli"
	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor"
)

// version is set by the linker.
var version = "dev"

func main() {
	// Every sandbox starts here, as a process of gVisor's: nothing may come
	// before it.
	if gvisor.IsReexec(os.Args) {
		if err := gvisor.ReexecMain(); err != nil {
			fmt.Fprintln(os.Stderr, "agentcube:", err)
			os.Exit(1)
		}
	}
	// What the standard library says by itself may hold what a sandbox has sent.
	log.SetOutput(io.Discard)
	os.Exit(cli.Main(cli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version,
	}))
}
