package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// kvmProbeTimeout bounds the look at /dev/kvm: where virtualization is broken it
// can hang, and that counts as no.
const kvmProbeTimeout = 2 * time.Second

// platform is gVisor's platform for the setting: "auto" is kvm where it works.
func platform(ctx context.Context, setting string) string {
	if setting != "auto" {
		return setting
	}
	if probeKVM(ctx) == nil {
		return "kvm"
	}
	return "systrap"
}

// probeKVM returns nil when a virtual machine can be made here. A process of
// its own tries: where it hangs in the kernel neither it nor a process that
// waits for it could end.
func probeKVM(ctx context.Context) error {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return fmt.Errorf("look for /dev/kvm: %w", reason(err))
	}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", probeKVMCommand) //nolint:noctx // its Wait may never end
	cmd.Args[0] = "agentcube"
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start probe of /dev/kvm: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	timeout := time.NewTimer(kvmProbeTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("try /dev/kvm: %s", strings.TrimSpace(out.String()))
		}
		return nil
	case <-timeout.C:
	case <-ctx.Done():
	}
	_ = cmd.Process.Kill()
	return errors.New("try /dev/kvm: it does not answer")
}

const probeKVMCommand = "probe-kvm"

// newProbeKVM is the other side of probeKVM.
func newProbeKVM(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    probeKVMCommand,
		Short:  "Try to make a virtual machine",
		Hidden: true,
		Args:   args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if err := makeVM(); err != nil {
				fmt.Fprintln(a.Stdout, err)
				return exitWith(exitFailure)
			}
			return nil
		},
	}
}

func makeVM() error {
	const getAPIVersion, createVM, wantVersion = 0xae00, 0xae01, 12
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", reason(err))
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), getAPIVersion)
	if err != nil {
		return fmt.Errorf("ask /dev/kvm for its version: %w", err)
	}
	if version != wantVersion {
		return fmt.Errorf("/dev/kvm has version %d, not %d", version, wantVersion)
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), createVM)
	if err != nil {
		return fmt.Errorf("make a virtual machine: %w", err)
	}
	return unix.Close(vm)
}

// machineMemory returns total and available memory in bytes.
func machineMemory() (total, available int64, err error) {
	data, err := readBounded("/proc/meminfo", 64<<10)
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of this machine: %w", err)
	}
	for name, into := range map[string]*int64{"MemTotal": &total, "MemAvailable": &available} {
		if *into, err = meminfo(string(data), name); err != nil {
			return 0, 0, err
		}
	}
	return total, available, nil
}

// meminfo reads one line of /proc/meminfo, in bytes.
func meminfo(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, name+":")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory of this machine: %w", err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("read memory of this machine: /proc/meminfo has no %s", name)
}
