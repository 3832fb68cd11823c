package e2e

import (
	"testing"

	"github.com/volcano-sh/agentcube/client"
)

// escapes are attempts to reach what is outside of the sandbox.
func escapes() []hostile {
	return []hostile{
		{name: "read host files", python: `
path = os.environ["HOSTFILE"]
for prefix in ["", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../../..", "/proc/thread-self/root", "/dev/fd/../../.."]:
    refused("read", read, prefix + path)
for device in ["/dev/vda", "/dev/sda", "/dev/mem", "/dev/kmem", "/dev/kvm", "/proc/kcore", "/proc/kmsg", "/dev/kmsg"]:
    refused("device", read, device)
for table in ["/proc/mounts", "/proc/self/mountinfo", "/proc/self/maps", "/proc/cmdline", "/proc/self/cgroup"]:
    if os.path.exists(table) and os.path.dirname(path).encode() in read(table):
        sys.exit("a path of the host shows in " + table)
for fd in os.listdir("/proc/self/fd"):
    print("fd", fd, os.readlink("/proc/self/fd/" + fd) if os.path.lexists("/proc/self/fd/" + fd) else "")
`, want: []string{"read refused"}},
		{name: "reach the host and the network", python: `
port = os.environ["HOSTPORT"]
refused("loopback of the host", connect, "127.0.0.1", port)
refused("any address", connect, "0.0.0.0", port)
for name, host, number in [("metadata", "169.254.169.254", 80), ("internet", "1.1.1.1", 443), ("private", "10.0.0.1", 80), ("gateway", "172.17.0.1", port)]:
    refused(name, connect, host, number)
refused("DNS", socket.getaddrinfo, "example.com", 80)
refused("DNS packet", connect, "8.8.8.8", 53, socket.SOCK_DGRAM)
refused("raw socket", socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
refused("packet socket", socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
for family, address in [(socket.AF_UNIX, "/run/docker.sock"), (socket.AF_UNIX, "/var/run/docker.sock"), (socket.AF_UNIX, "\0abstract")]:
    refused("unix socket", socket.socket(family).connect, address)
print("interfaces", *[name for _, name in socket.if_nameindex()])
`, want: []string{"loopback of the host refused", "metadata refused", "internet refused", "DNS refused", "raw socket refused", "interfaces lo"}},
		{name: "become root", python: `
refused("setuid", os.setuid, 0)
refused("setgid", os.setgid, 0)
refused("setgroups", os.setgroups, [0])
refused("chroot", os.chroot, "/")
refused("mknod", os.mknod, "device", 0o666 | 0o060000, os.makedev(8, 0))
refused("chown", os.chown, "/etc/passwd", 1000, 1000)
refused("write", open, "/etc/passwd", "a")
refused("write the agent", open, "/.agentcube/picod", "r+b")
refused("mount", syscall, 165, b"none", b"/mnt", b"tmpfs", 0, None)
refused("reboot", syscall, 169, 0xfee1dead, 672274793, 0x1234567, None)
refused("module", syscall, 313, 0, b"", 0)
refused("hostname", syscall, 170, b"evil", 4)
refused("clock", syscall, 227, 0, (ctypes.c_long * 2)(0, 0))
with open("/proc/self/status") as f:
    print(*[line.strip() for line in f if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))], sep="\n")
for program in (["su", "-c", "id -u"], ["sudo", "-n", "id", "-u"], ["newgrp", "root"]):
    try:
        got = subprocess.run(program, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        continue
    if got.returncode == 0:
        sys.exit(f"{program} printed {got.stdout}")
# A user namespace makes root of nobody that matters.
got = subprocess.run(["unshare", "-Ur", "cat", "/proc/1/environ"], capture_output=True)
print("namespace", got.returncode != 0 and got.stdout == b"")
`, want: []string{"setuid refused", "mount refused", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "namespace True"}},
		{name: "look for keys", python: `
seen = dict(os.environ)
found = []
for top in ["/run", "/.agentcube", "/etc", "/root", "/var", "/tmp", "/home", "/workspace"]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.path.isfile(path) and os.path.getsize(path) < 1 << 20:
                    with open(path, "rb") as f:
                        content = f.read()
                        if b"PUBLIC KEY-----" in content or b"PRIVATE" + b" KEY-----" in content:
                            found.append(path)
            except OSError:
                pass
print("keys in files:", found)
print("keys in the environment:", [k for k, v in seen.items() if "KEY" in v or "KEY" in k or "TOKEN" in k])
refused("state of the agent", os.listdir, "/run/picod")
`, want: []string{"keys in the environment: []", "state of the agent refused"}, code: 0},
		{name: "as root in the sandbox", template: "as-root", dies: true, python: `
print(os.getuid(), flush=True)
path = os.environ["HOSTFILE"]
for prefix in ["", "/proc/1/root"]:
    refused("read", read, prefix + path)
refused("loopback of the host", connect, "127.0.0.1", os.environ["HOSTPORT"])
refused("internet", connect, "1.1.1.1", 443)
`, want: []string{"0", "read refused", "read refused", "loopback of the host refused", "internet refused"}, api: ruin},
	}
}

// ruin has root destroy its own sandbox, as it may. What became of it is told.
func ruin(t *testing.T, f *battlefield, s *client.Session) {
	const program = `
import os, signal, subprocess
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.kill(1, number)
    except OSError:
        pass
subprocess.run("kill -9 -1; rm -rf /etc /usr/bin /run /workspace/*; echo c > /proc/sysrq-trigger; reboot -f", shell=True)
`
	_, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"python3", "-c", program}})
	if err == nil {
		_, err = s.ListFiles(t.Context(), "")
	}
	if err == nil {
		return // it has survived
	}
	if rec := awaitEnd(t, f.c, s.ID); rec.Fate == "" || rec.Reason == "" {
		t.Errorf("session ended as %+v, after %v", rec, err)
	}
}

// agentAttacks are attempts on PicoD, which is process 1 of the sandbox.
func agentAttacks() []hostile {
	return []hostile{
		{name: "kill the agent", python: `
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGHUP, signal.SIGQUIT, 0):
    refused(f"signal {int(number)}", os.kill, 1, number)
refused("pidfd", lambda: syscall(424, os.pidfd_open(1), signal.SIGKILL, None, 0))
refused("limits", syscall, 302, 1, 7, (ctypes.c_ulong * 2)(0, 0), None)
refused("priority", os.setpriority, os.PRIO_PROCESS, 1, 19)
`, want: []string{"signal 9 refused", "signal 15 refused", "limits refused"}},
		{name: "kill all that can be killed", python: `
if os.fork() == 0:
    time.sleep(100000)
os.kill(-1, signal.SIGKILL)
print("killed")
`, want: []string{"killed"}, api: func(t *testing.T, _ *battlefield, s *client.Session) {
			// The interpreter that was kept ready is dead too, which PicoD notices
			// when it is next needed.
			if got := run(t, s, "python3", "-c", "print(1)"); string(got.Stdout) != "1\n" || got.ExitCode != 0 {
				t.Errorf("the next program: %+v", got)
			}
			awaitProcesses(t, s)
		}},
		{name: "trace the agent", python: `
for name, request in (("attach", 16), ("seize", 0x4206)):
    refused(name, syscall, 101, request, 1, None, None)
buffer = ctypes.create_string_buffer(64)
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
local, remote = iovec(ctypes.addressof(buffer), 64), iovec(0x400000, 64)
refused("read memory", syscall, 310, 1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
refused("write memory", syscall, 311, 1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
refused("take a file", lambda: syscall(438, os.pidfd_open(1), 3, 0))
for name in ("mem", "environ", "maps", "auxv", "syscall", "stack"):
    if os.path.exists("/proc/1/" + name):
        refused("/proc/1/" + name, read, "/proc/1/" + name)
refused("files", os.listdir, "/proc/1/fd")
refused("program", os.readlink, "/proc/1/exe")
`, want: []string{"attach refused", "seize refused", "read memory refused", "/proc/1/mem refused", "/proc/1/environ refused", "files refused"}},
		{name: "call the agent", python: `
import json, urllib.error, urllib.request
def call(method, path, body=None, **headers):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, method=method, headers=headers,
        data=None if body is None else json.dumps(body).encode())
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as e:
        if not json.loads(e.read()).get("error"):
            sys.exit("the answer says nothing")
        return e.code
print("execute", call("POST", "/api/execute", {"command": ["id"]}))
print("upload", call("POST", "/api/files", {"path": "x", "content": ""}))
print("list", call("GET", "/api/files?path=."))
print("download", call("GET", "/api/files/x"))
print("forged", call("POST", "/api/execute", {"command": ["id"]}, Authorization="Bearer eyJhbGciOiJub25lIn0.e30."))
print("init", call("POST", "/init", {}, Authorization="Bearer eyJhbGciOiJub25lIn0.e30."))
`, want: []string{"execute 401", "upload 401", "list 401", "download 401", "forged 401", "init 403"}},
		{name: "flood the agent with connections", python: `
held = []
try:
    for _ in range(900):
        s = socket.socket()
        s.settimeout(20)
        s.connect(("127.0.0.1", 8080))
        s.send(b"POST /api/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n")
        held.append(s)
except OSError as e:
    print(e, file=sys.stderr)
if os.fork():
    print("held", len(held) > 0, flush=True)
    os._exit(0)
time.sleep(1000)
`, want: []string{"held True"}, api: func(t *testing.T, _ *battlefield, s *client.Session) {
			// The connections are held open by what was left in the background.
			for range 20 {
				if got := output(t, s, "echo through"); got != "through\n" {
					t.Fatalf("the agent answers %q", got)
				}
			}
		}},
	}
}
