package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gvisor.dev/gvisor/runsc/cli/maincli"

	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/sentry"
)

// IsReexec reports whether the process with these arguments was started to be
// a part of gVisor: its sandbox, its gofer or one of its helpers, or its stock
// command line when the program is called "runsc".
//
// gVisor starts itself as /proc/self/exe, with argv[0] "runsc-sandbox",
// "runsc-gofer", or left as /proc/self/exe.
func IsReexec(args []string) bool {
	if len(args) == 0 {
		return false
	}
	return args[0] == "/proc/self/exe" || strings.HasPrefix(filepath.Base(args[0]), "runsc")
}

// ReexecMain is gVisor's own main. It returns only when that cannot begin.
func ReexecMain() error {
	if err := sentry.CloseStrangers(os.Args); err != nil {
		return fmt.Errorf("close other sandboxes' files: %w", err)
	}
	os.Args = sentry.TellMemory(os.Args)
	maincli.Main()
	return nil
}
