package gvisor

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"
)

// containerID is the same in every sandbox, as each has a state directory of
// its own: that keeps the path of the control socket short.
const containerID = "sb"

// runscConfig is gVisor's configuration for one sandbox.
func runscConfig(stateDir, panicLog, platform string) (*config.Config, error) {
	fs := flag.NewFlagSet("gvisor", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	config.RegisterFlags(fs)
	for name, value := range map[string]string{
		"root":      stateDir,
		"platform":  platform,
		"panic-log": panicLog,
		"log":       filepath.Join(filepath.Dir(panicLog), startLog),
		"network":   "sandbox",
		// The sentry gets no access to the host's file system, and a user
		// namespace of its own in which it is nobody.
		"directfs": "false",
		"overlay2": "none", // the root's overlay is set by annotation
		// Groups are made by this package: joining them through gVisor would
		// move this whole process on cgroup v1.
		"ignore-cgroups":       "true",
		"host-settings":        "ignore",
		"sidecar-usage-policy": "LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK",
	} {
		if err := fs.Set(name, value); err != nil {
			return nil, fmt.Errorf("set gVisor option %s: %w", name, err)
		}
	}
	conf, err := config.NewFromFlags(fs)
	if err != nil {
		return nil, fmt.Errorf("configure gVisor: %w", err)
	}
	return conf, nil
}

// writeBundle writes the OCI bundle and returns the spec as gVisor reads it.
func writeBundle(dir string, spec *specs.Spec, conf *config.Config) (*specs.Spec, error) {
	if err := os.MkdirAll(spec.Root.Path, 0o755); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	read, err := specutils.ReadSpec(dir, conf)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return read, nil
}
