package sentry

import (
	_ "embed"
	"encoding/json"
	"fmt"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/boot/filter"
)

// filters are the programs by which the sentry locks itself in (seccomp(2)),
// compiled ahead: gVisor would do it at each start of a sandbox, which takes
// longer than anything else in it. They are made by `make generate` from
// gVisor's own rules, and a test compares them with these.
//
//go:embed filters.json
var filters []byte

// precompiled is where gVisor keeps such programs. Its builds by Bazel fill it;
// builds as a Go module have no way to, and no other name for it.
//
//go:linkname precompiled gvisor.dev/gvisor/runsc/boot/filter.precompiledPrograms
var precompiled map[string]precompiledseccomp.Program

// useFilters gives gVisor the programs. One that is not among them it compiles.
func useFilters() error {
	_ = filter.ListPrecompiled() // gVisor fills the map at its first use
	var programs map[string]precompiledseccomp.Program
	if err := json.Unmarshal(filters, &programs); err != nil {
		return fmt.Errorf("read compiled filters: %w", err)
	}
	for name, program := range programs {
		precompiled[name] = program
	}
	return nil
}
