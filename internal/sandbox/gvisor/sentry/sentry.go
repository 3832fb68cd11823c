// Package sentry is the main program of a sandbox's process on the host:
// gVisor's kernel, which gVisor calls the sentry.
package sentry

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
	"gvisor.dev/gvisor/runsc/gvisorbinaries"
)

// Main runs the sentry. It returns only when that cannot begin.
func Main() error {
	if err := CloseStrangers(os.Args); err != nil {
		return fmt.Errorf("close other sandboxes' files: %w", err)
	}
	if err := useFilters(); err != nil {
		return err
	}
	os.Args = TellMemory(os.Args)
	cli.Run(&gvisorbinaries.GvisorSentry, map[util.SubCommand]string{
		new(sentrycmd.Boot): "", new(sentrycmd.Umount): "",
	}, nil)
	return nil
}

// BundlePrefix begins the name of the bundle directory; the memory of the
// sandbox in bytes follows. The sandbox process is given this path, and next
// to nothing else that is ours.
const BundlePrefix = "bundle-"

// TellMemory returns the arguments of a sentry changed so that the guest sees
// its own memory limit as the memory of its machine. gVisor takes that number from the control group only when it made
// the group itself, and passes the host's otherwise.
func TellMemory(args []string) []string {
	at := slices.Index(args, "--total-memory")
	if at < 0 || at+1 >= len(args) {
		return args
	}
	for _, arg := range args {
		bundle, ok := strings.CutPrefix(arg, "--bundle=")
		if !ok {
			continue
		}
		size, ok := strings.CutPrefix(filepath.Base(bundle), BundlePrefix)
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
