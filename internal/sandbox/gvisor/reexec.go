package gvisor

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gvisor.dev/gvisor/runsc/cli/maincli"
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

// ReexecMain is gVisor's own main. It does not return.
func ReexecMain() {
	os.Args = tellMemory(os.Args)
	maincli.Main()
}

// bundlePrefix begins the name of the bundle directory; the memory of the
// sandbox in bytes follows. The sandbox process is given this path, and next
// to nothing else that is ours.
const bundlePrefix = "bundle-"

// tellMemory makes the guest see its own memory limit as the memory of its
// machine. gVisor takes that number from the control group only when it made
// the group itself, and passes the host's otherwise.
func tellMemory(args []string) []string {
	at := slices.Index(args, "--total-memory")
	if at < 0 || at+1 >= len(args) {
		return args
	}
	for _, arg := range args {
		bundle, ok := strings.CutPrefix(arg, "--bundle=")
		if !ok {
			continue
		}
		size, ok := strings.CutPrefix(filepath.Base(bundle), bundlePrefix)
		if !ok {
			return args
		}
		limit, err := strconv.ParseUint(size, 10, 63)
		if err != nil {
			return args
		}
		if host, err := strconv.ParseUint(args[at+1], 10, 64); err == nil && host < limit {
			return args
		}
		out := slices.Clone(args)
		out[at+1] = size
		return out
	}
	return args
}
