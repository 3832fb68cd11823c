package gvisor

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

const (
	agentDir  = "/.agentcube"
	agentPath = agentDir + "/picod"

	// The unprivileged user that runs user code, as in the default image.
	userID, groupID = sandbox.UserID, sandbox.UserID

	shmBytes = 64 << 20
)

// bundle is everything that the OCI spec of a sandbox depends on.
type bundle struct {
	frame    frame
	hostname string
	rootDir  string // an empty directory
	netns    string // path of the network namespace
}

// ociSpec builds the OCI runtime spec. It is pure: the same bundle gives the
// same spec.
func ociSpec(b bundle) *specs.Spec {
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: b.hostname,
		Root:     &specs.Root{Path: b.rootDir},
		Process: &specs.Process{
			Args: processArgs(b.frame),
			Env:  processEnv(b.frame),
			Cwd:  cmp.Or(b.frame.Dir, "/"),
			User: user(b.frame),

			Capabilities: capabilities(b.frame),
			Rlimits:      rlimits(b.frame),
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=65536k", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs",
				Options: []string{"nosuid", "nodev", "mode=1777", "size=" + strconv.Itoa(shmBytes)}},
			{Destination: agentDir, Type: "erofs", Source: b.frame.AgentPath, Options: []string{"ro", "nosuid", "nodev"}},
		},
		Annotations: map[string]string{
			"dev.gvisor.spec.rootfs.source":  b.frame.ImagePath,
			"dev.gvisor.spec.rootfs.type":    "erofs",
			"dev.gvisor.spec.rootfs.overlay": "memory",
			"dev.gvisor.spec.rootfs.options": "size=" + strconv.FormatInt(b.frame.Resources.DiskBytes, 10),
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace, Path: b.netns},
			},
		},
	}
}

// capabilities are those of the gVisor kernel; on the host the sandbox has none.
// PicoD needs them to become the user that runs a command, to own what it
// uploads, to kill its processes, and with two of its own to set their limits and
// to mount their control group. A program in PicoD's place goes without those: who
// has them is above the limit of processes. As another user than root it has none.
func capabilities(f frame) *specs.LinuxCapabilities {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
	if f.agent() {
		caps = append(caps, "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE")
	}
	slices.Sort(caps)
	if user(f).UID != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

func user(f frame) specs.User {
	if f.User == nil {
		return specs.User{}
	}
	return specs.User{UID: f.User.UID, GID: f.User.GID}
}

// relayProcesses is room for the threads of the relay, which runs as root, too,
// and counts.
const relayProcesses = 16

// rlimits are those of the first process. That of processes is for one user, and
// for a program in PicoD's place; PicoD sets the limits of what it starts.
func rlimits(f frame) []specs.POSIXRlimit {
	limits := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 65536, Hard: 65536}}
	if !f.agent() {
		n := uint64(f.Resources.Processes) + relayProcesses
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: n, Hard: n})
	}
	return limits
}

func processArgs(f frame) []string {
	if !f.agent() {
		return append(append([]string{}, f.Command...), f.Args...)
	}
	args := []string{
		agentPath,
		"--port", strconv.Itoa(int(sandbox.AgentPort)),
		"--host-fd", strconv.Itoa(hostFD),
		"--workspace", f.Workspace,
		"--max-processes", strconv.FormatInt(f.Resources.Processes, 10),
		"--unmount", "/tmp",
		"--cgroup-dir", "/run/picod/cgroup",
		"--python-zygote", "--preload", strings.Join(f.Preload, ","),
	}
	if !f.RunAsRoot {
		args = append(args, "--run-as", fmt.Sprintf("%d:%d", userID, groupID))
	}
	return args
}

// processEnv is the image's environment, then the template's; later entries
// win. The order is stable.
func processEnv(f frame) []string {
	merged := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	for _, kv := range f.ImageEnv {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			merged[k] = v
		}
	}
	for k, v := range f.Env {
		merged[k] = v
	}
	env := make([]string, 0, len(merged))
	for k, v := range merged {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}

// hostname is the sandbox id, shortened: it only has to tell sandboxes apart
// for the people who look at a prompt.
func hostname(id string) string {
	const longest = 20
	if len(id) > longest {
		id = strings.TrimRight(id[:longest], "-")
	}
	return id
}

// withDefaults fills what the spec leaves open and refuses what is wrong.
func withDefaults(s sandbox.Spec) (sandbox.Spec, error) {
	if !validID(s.ID) {
		return s, fmt.Errorf("%w: id %q: want 1 to 63 characters of [a-z0-9-]", sandbox.ErrInvalidSpec, s.ID)
	}
	if s.Image == "" && s.Snapshot == "" {
		return s, fmt.Errorf("%w: image is empty", sandbox.ErrInvalidSpec)
	}
	if s.Workspace == "" {
		s.Workspace = "/workspace"
	}
	if !path.IsAbs(s.Workspace) || path.Clean(s.Workspace) != s.Workspace {
		return s, fmt.Errorf("%w: workspace %q: want a clean absolute path", sandbox.ErrInvalidSpec, s.Workspace)
	}
	r := &s.Resources
	for _, limit := range []struct {
		name  string
		value *int64
		def   int64
		min   int64
	}{
		{"cpu", &r.CPUMillis, DefaultCPUMillis, 10},
		{"memory", &r.MemoryBytes, DefaultMemoryBytes, 64 << 20},
		{"disk", &r.DiskBytes, DefaultDiskBytes, 1 << 20},
		{"processes", &r.Processes, DefaultProcesses, 4},
	} {
		if *limit.value == 0 {
			*limit.value = limit.def
		}
		if *limit.value < limit.min {
			return s, fmt.Errorf("%w: %s limit %d is below the least that works, %d", sandbox.ErrInvalidSpec, limit.name, *limit.value, limit.min)
		}
	}
	return s, nil
}

func validID(id string) bool {
	if id == "" || len(id) > 63 {
		return false
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
