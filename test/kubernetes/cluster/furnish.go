package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// stateDir is where the folder of a place appears in its namespaces: short,
	// as sockets are in it, and on a file system that containerd can put
	// overlays on.
	stateDir = "/run/cluster"
	// placeFile holds the name of the place, which is that of its control groups.
	placeFile = "/run/place"
	// nodeName is the name of the node, and of the machine as it sees itself.
	nodeName = "node"
	// bridgeName is the link that Pods are plugged into. The node has its address
	// there, so that it exists before the first Pod.
	bridgeName = "cni0"
	podSubnet  = "10.200.0.0/16"
)

// NodeIP is the address of the node: where Pods find what a test serves, as what is
// inside Enter has no other network.
const NodeIP = "10.200.0.1"

// machineSettings are those that kubelet sets for the whole machine and insists on.
var machineSettings = []string{
	"kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "kernel/panic", "kernel/panic_on_oops",
	"vm/overcommit_memory", "vm/panic_on_oom",
}

// furnish makes new namespaces a machine for a node, on which nothing that is
// written outside folder reaches the real one.
func furnish(folder *os.File) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()))
	if err != nil {
		return fmt.Errorf("find folder: %w", err)
	}
	// Taken before what it may be in is covered.
	state, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(state)
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	if err := os.Mkdir(stateDir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := unix.MoveMount(state, "", unix.AT_FDCWD, stateDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", stateDir, err)
	}
	if err := os.WriteFile(placeFile, []byte(filepath.Base(path)), 0o600); err != nil {
		return fmt.Errorf("name place: %w", err)
	}
	if err := errors.Join(coverLib(), coverSettings(), coverResolver()); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("name machine: %w", err)
	}
	return plug()
}

// coverLib lets what programs write below /var/lib, whatever they are told, go to
// memory.
func coverLib() error {
	upper, work := "/run/lib/upper", "/run/lib/work"
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	options := "lowerdir=/var/lib,upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", "/var/lib", "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay on /var/lib: %w", err)
	}
	return nil
}

// coverSettings puts files over the settings of the machine, that say the same and
// can be written to. The kernel lets containers in user namespaces mount /proc only
// where one that is not covered can be seen, hence another.
func coverSettings() error {
	const whole = "/run/proc"
	if err := os.Mkdir(whole, 0o555); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := unix.Mount("proc", whole, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", whole, err)
	}
	for _, setting := range machineSettings {
		path := filepath.Join("/proc/sys", setting)
		value, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read setting: %w", err)
		}
		if err := cover(path, value); err != nil {
			return err
		}
	}
	return nil
}

// coverResolver says that names are looked up on this machine, where nobody answers,
// and so at once, instead of at a server that cannot be reached.
func coverResolver() error { return cover("/etc/resolv.conf", []byte("nameserver 127.0.0.1\n")) }

// cover puts a file with that content over the one at path.
func cover(path string, content []byte) error {
	file := filepath.Join("/run", "cover"+strings.ReplaceAll(path, "/", "-"))
	if err := os.WriteFile(file, content, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	return nil
}

// plug makes the network: loopback, and the bridge with the node's address and a
// default route, without which kubelet finds no address and programs no network.
func plug() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	_, subnet, err := net.ParseCIDR(podSubnet)
	if err != nil {
		return fmt.Errorf("read subnet: %w", err)
	}
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(NodeIP), Mask: subnet.Mask}}); err != nil {
		return fmt.Errorf("give node its address: %w", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bring bridge up: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Gw: nil, Scope: netlink.SCOPE_LINK, Dst: everywhere()}); err != nil {
		return fmt.Errorf("make default route: %w", err)
	}
	// Pods reach services through the node.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	return nil
}

func everywhere() *net.IPNet { return &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)} }
