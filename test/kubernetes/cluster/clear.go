package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// clearNode ends what the node has started and removes what that leaves, once
// kubelet and containerd are gone: what runs containers and what is in the control
// groups of Pods, their mounts, links and groups.
func (c *Cluster) clearNode() error {
	place, err := os.ReadFile(placeFile)
	if err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids := c.ofNode(string(place))
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if time.Now().After(end) {
			return fmt.Errorf("end processes of the node: %v are left", pids)
		}
	}
	return errors.Join(c.unmount(), unplug(), removeGroups(filepath.Join(string(place), "kubepods")))
}

// ofNode lists the processes that the node has left: those that run one of its
// programs, and those in a control group of its place.
func (c *Cluster) ofNode(place string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	programs := c.nodePrograms()
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		groups, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		if slices.Contains(programs, exe) || strings.Contains(string(groups), ":/"+place+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// nodePrograms lists what the names of those binaries stand for that run containers
// and are no components of the cluster, but started by one.
func (c *Cluster) nodePrograms() []string {
	var out []string
	for _, name := range []string{"containerd-shim-runc-v2", "containerd-shim-runsc-v1", "runc", "runsc", "bridge", "host-local"} {
		if path, err := filepath.EvalSymlinks(filepath.Join(c.binaries, name)); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// unmount removes what the node has mounted, the last first.
func (c *Cluster) unmount() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, fields[4])
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		for _, dir := range []string{c.dir, "/run/netns", "/run/containerd", "/run/runsc", "/var/lib/kubelet"} {
			if !strings.HasPrefix(point, dir+"/") {
				continue
			}
			if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
			}
		}
	}
	for _, dir := range []string{"/run/netns", "/run/containerd", "/run/runsc"} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// unplug removes the links of Pods, which vanish with their networks, but not at
// once.
func unplug() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		if link.Type() != "veth" {
			continue
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove link %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}
