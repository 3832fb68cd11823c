package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor"
)

const (
	// driverProbeTimeout bounds the start of a driver for a look at it.
	driverProbeTimeout = 30 * time.Second
	// Least free memory, and disk space where images are, that are no worry.
	wantMemory = 1 << 30
	wantDisk   = 5 << 30
	needDisk   = 512 << 20
)

func checkRoot(context.Context) []check {
	if uid := os.Geteuid(); uid != 0 {
		return []check{fail("root", fmt.Sprintf("this is user %d", uid), "run it as root: sudo agentcube doctor; sandboxes need namespaces and control groups")}
	}
	return []check{pass("root", "this is root")}
}

func checkKernel(context.Context) []check {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return []check{fail("kernel", err.Error(), "")}
	}
	release := unix.ByteSliceToString(name.Release[:])
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return []check{fail("kernel", "Linux "+release+" on "+runtime.GOARCH, "gVisor runs on amd64 and arm64 only")}
	}
	var major, minor int
	// A release that does not begin with two numbers counts as 0.0.
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	if major < 4 || major == 4 && minor < 15 {
		return []check{fail("kernel", "Linux "+release, "gVisor needs Linux 4.15 or newer")}
	}
	return []check{pass("kernel", "Linux %s on %s", release, runtime.GOARCH)}
}

func (a *app) checkKVM(ctx context.Context) []check {
	err := probeKVM(ctx)
	switch {
	case err == nil:
		return []check{pass("kvm", "works; --platform kvm or auto uses it")}
	case a.cfg.Platform == "kvm":
		return []check{fail("kvm", err.Error(), "set platform to systrap or auto, which need no KVM")}
	}
	return []check{pass("kvm", "not usable, and not needed: systrap is used (%s)", err)}
}

func checkCgroups(context.Context) []check {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []check{pass("cgroup", "version 2")}
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		return []check{pass("cgroup", "version 1")}
	}
	return []check{warn("cgroup", "no control groups at /sys/fs/cgroup", "mount cgroup v2 there: mount -t cgroup2 none /sys/fs/cgroup")}
}

func checkErofs(ctx context.Context) []check {
	const name, install = "mkfs.erofs", "install erofs-utils: apt-get install erofs-utils"
	path, err := exec.LookPath(name)
	if err != nil {
		return []check{fail(name, "not found in PATH", install)}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// Not every release has an option for its version, or ends with 0 after a
	// help text; what counts is that it runs and says who it is.
	out, err := exec.CommandContext(ctx, path, "--help").CombinedOutput()
	if !strings.Contains(string(out), "FILE") {
		return []check{fail(name, fmt.Sprintf("%s does not run: %v", path, err), install)}
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, name+" ") {
			return []check{pass(name, "%s (%s)", path, strings.TrimSpace(line))}
		}
	}
	return []check{pass(name, "%s", path)}
}

// checkDriver starts a driver on an empty folder, without sandboxes, and asks
// what it can do here.
func checkDriver(ctx context.Context) []check {
	const name = "gvisor"
	if os.Geteuid() != 0 {
		return []check{warn(name, "not looked at, as this is not root", "sudo agentcube doctor")}
	}
	// Not the configured temporary folder: names of sockets must be short.
	dir, err := os.MkdirTemp("/tmp", "agentcube-doctor-")
	if err != nil {
		return []check{fail(name, err.Error(), "")}
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, driverProbeTimeout)
	defer cancel()
	driver := gvisor.New(gvisor.Config{DataDir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err := driver.Open(ctx); err != nil {
		return []check{fail(name, err.Error(), "see what the other checks say")}
	}
	defer driver.Close()
	caps := driver.Capabilities()
	checks := []check{pass(name, "isolation %s", caps.Isolation)}
	for _, l := range caps.Limits {
		if l.Enforced {
			checks = append(checks, pass("limit "+l.Name, "held by %s", l.How))
		} else {
			checks = append(checks, warn("limit "+l.Name, "not held by this machine: "+l.How,
				"mount the cgroup controller, or give AgentCube control of it (systemd: Delegate=yes)"))
		}
	}
	return checks
}

func (a *app) checkDisk(context.Context) []check {
	dir := existingParent(a.cfg.DataDir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return []check{fail("disk", fmt.Sprintf("%s: %v", dir, err), "")}
	}
	free := int64(st.Bavail) * st.Bsize
	detail := fmt.Sprintf("%s free at %s", size(free), dir)
	switch {
	case free < needDisk:
		return []check{fail("disk", detail, "free some space: images and the session store are kept there")}
	case free < wantDisk:
		return []check{warn("disk", detail, "that may not be enough for more images")}
	}
	return []check{pass("disk", "%s", detail)}
}

func checkMemory(context.Context) []check {
	total, available, err := machineMemory()
	if err != nil {
		return []check{fail("memory", err.Error(), "")}
	}
	detail := fmt.Sprintf("%s available of %s", size(available), size(total))
	if available < wantMemory {
		return []check{warn("memory", detail, "sessions of the default template may use up to 1 GiB each")}
	}
	return []check{pass("memory", "%s", detail)}
}

// existingParent is dir or the nearest folder above it that exists.
func existingParent(dir string) string {
	for {
		_, err := os.Stat(dir)
		up := parent(dir)
		if err == nil || !errors.Is(err, os.ErrNotExist) || up == dir {
			return dir
		}
		dir = up
	}
}
