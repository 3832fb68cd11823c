// Command gvisor-sentry is gVisor's kernel and nothing else: sandboxes start
// with it sooner, and hold less memory, than with all of agentcube. The
// program agentcube carries it.
package main

import (
	"fmt"
	"os"

	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/sentry"
)

func main() {
	if err := sentry.Main(); err != nil {
		fmt.Fprintln(os.Stderr, "gvisor-sentry:", err)
		os.Exit(1)
	}
}
