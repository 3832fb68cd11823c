package sentry

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/runsc/boot/filter"
	"gvisor.dev/gvisor/runsc/boot/filter/config"
)

var update = flag.Bool("update", false, "make filters.json again, which takes minutes")

// options are those of the sandboxes that AgentCube makes.
func options(t *testing.T) (all []config.Options) {
	t.Helper()
	for _, name := range []string{"systrap", "kvm"} {
		constructor, err := platform.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range constructor.PrecompiledSeccompInfo() {
			all = append(all, config.Options{Platform: info, ControllerFD: 1234})
		}
	}
	return all
}

// TestFiltersAreCurrent compiles the filters from gVisor's rules and compares.
func TestFiltersAreCurrent(t *testing.T) {
	all := options(t)
	if *update {
		makeFilters(t, all)
	}
	if err := useFilters(); err != nil {
		t.Fatal(err)
	}
	for _, opt := range all {
		ahead, ok := filter.GetPrecompiled(opt.ConfigKey())
		if !ok {
			t.Errorf("filter %s is missing: run make generate", opt.ConfigKey())
			continue
		}
		got, err := ahead.RenderInstructions(opt.Vars())
		if err != nil {
			t.Fatal(err)
		}
		rules, denied := config.Rules(opt)
		program := seccomp.Program{
			RuleSets: []seccomp.RuleSet{{Rules: denied}, {Rules: rules, Action: seccomp.Allow}},
			Options:  config.SeccompOptions(opt),
		}
		want, _, err := program.Build()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("filter %s is not current: run make generate", opt.ConfigKey())
		}
	}
}

// withPID makes a variable of the number of this process, which one of systrap's
// rules has as a constant.
func withPID(p precompiledseccomp.Program) precompiledseccomp.Program {
	const name = "self_pid_low32bits"
	for at, word := range p.Bytecode32 {
		if word == uint32(os.Getpid()) && !slices.Contains(p.VarOffsets[name], at) {
			p.VarOffsets[name] = append(p.VarOffsets[name], at)
		}
	}
	return p
}

// makeFilters writes filters.json. gVisor compiles all its variants or none.
func makeFilters(t *testing.T, wanted []config.Options) {
	programs, err := config.PrecompiledPrograms()
	if err != nil {
		t.Fatal(err)
	}
	keep := map[string]precompiledseccomp.Program{}
	for _, opt := range wanted {
		for _, p := range programs {
			if p.Name == opt.ConfigKey() {
				keep[p.Name] = withPID(p)
			}
		}
	}
	text, err := json.Marshal(keep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("filters.json", append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	filters = text
}
