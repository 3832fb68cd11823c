package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"

	"github.com/volcano-sh/agentcube/internal/sandbox"
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

// started is a sentry process that runs its first guest process.
type started struct {
	proc      *process
	startTime uint64
	socket    string
}

// start makes the sentry process, gives its first guest process the trunk, puts it under its limits and starts the
// first process inside. known is called once the sentry's number is known and
// before any guest code runs.
func start(bundleDir string, spec *specs.Spec, conf *config.Config, line *os.File, limit func(pids []int) error, known func(started) error) (err error) {
	cont, err := container.New(conf, container.Args{
		ID: containerID, Spec: spec, BundleDir: bundleDir,
		PassFiles: map[int]*os.File{trunkFD: line},
	})
	if err != nil {
		return fmt.Errorf("create gVisor sandbox: %w", err)
	}
	pid := cont.SandboxPid()
	var s started
	if s.startTime, err = startTime(pid); err != nil {
		return errors.Join(err, cont.Destroy())
	}
	if s.proc, err = openProcess(pid, s.startTime); err != nil {
		return errors.Join(err, cont.Destroy())
	}
	s.socket = cont.Sandbox.GetControlSocketPath()
	if err := known(s); err != nil {
		return err
	}
	if err := limit(descendants(pid)); err != nil {
		return err
	}
	if err := cont.Start(conf); err != nil {
		return fmt.Errorf("start gVisor sandbox: %w", err)
	}
	return nil
}

// waitReady returns when PicoD answers its health check.
func waitReady(ctx context.Context, dial func(context.Context) (net.Conn, error), gone <-chan struct{}) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
	url := "http://sandbox:" + strconv.Itoa(int(sandbox.AgentPort)) + "/health"
	var last error
	for delay := time.Millisecond; ; delay = min(2*delay, 20*time.Millisecond) {
		if last = probe(ctx, &client, url); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the agent in the sandbox: %w (last: %w)", ctx.Err(), last)
		case <-gone:
			return fmt.Errorf("wait for the agent in the sandbox: %w (last: %w)", sandbox.ErrNotRunning, last)
		case <-time.After(delay):
		}
	}
}

func probe(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make health request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health check answered %s", resp.Status)
	}
	return nil
}
