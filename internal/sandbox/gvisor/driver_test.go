package gvisor

import (
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

var update = flag.Bool("update", false, "rewrite golden files")

// testImage is an image with nothing in it: PicoD needs nothing.
type testImage string

func (p testImage) Rootfs(_ context.Context, ref string) (sandbox.Image, error) {
	if ref != "test" {
		return sandbox.Image{}, sandbox.ErrNoImage
	}
	return sandbox.Image{Rootfs: string(p), Env: []string{"LANG=C.UTF-8"}}, nil
}

// testSpec is a sandbox with nothing but PicoD.
func testSpec(t *testing.T, id string) sandbox.Spec {
	t.Helper()
	return sandbox.Spec{ID: id, Image: "test", BootstrapKey: bootstrapKey(t.TempDir())}
}

// bootstrapKey is a public key that PicoD accepts; nobody has the other half.
func bootstrapKey(dir string) string {
	key, err := auth.LoadOrCreateRSAKey(filepath.Join(dir, "key.pem"))
	if err != nil {
		panic(err)
	}
	text, err := auth.PublicKeyPEM(&key.PublicKey)
	if err != nil {
		panic(err)
	}
	return text
}

func makeImage(t *testing.T, dir string) testImage {
	t.Helper()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"dev", "proc", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "test.erofs")
	if out, err := exec.CommandContext(t.Context(), "mkfs.erofs", "-E", "noinline_data", path, root).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	return testImage(path)
}

// dataDir is a directory with a name short enough for a socket.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ac")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func openDriver(t *testing.T, dir string, image testImage) *Driver {
	t.Helper()
	d := New(Config{DataDir: dir, Images: image})
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// closeEmpty deletes all sandboxes, closes the driver and checks that nothing
// of it is left on the machine.
func closeEmpty(t *testing.T, d *Driver) {
	t.Helper()
	go func() {
		for range d.Exits() { // nobody else reads them
		}
	}()
	boxes, err := d.List(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, b := range boxes {
		if err := d.Delete(context.Background(), b.ID); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	checkNothingLeft(t, d)
}

func checkNothingLeft(t *testing.T, d *Driver) {
	t.Helper()
	for _, dir := range []string{d.dir, d.runs, d.snaps} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("left in the data directory: %v, %v", entries, err)
		}
	}
	if left, err := sentriesBelow(d.runs); err != nil || len(left) != 0 {
		t.Errorf("left running: %v, %v", left, err)
	}
	for _, root := range d.groups.roots {
		if _, err := os.Stat(filepath.Join(root, d.groups.parent)); !os.IsNotExist(err) {
			t.Errorf("left in %s: %s", root, d.groups.parent)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), d.cfg.DataDir) {
		t.Errorf("left mounted: something below %s", d.cfg.DataDir)
	}
}

// placeOf is where a sandbox runs.
func placeOf(t *testing.T, d *Driver, id string) place {
	t.Helper()
	b, err := d.find(id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.running()
	if err != nil {
		t.Fatal(err)
	}
	return r.place()
}

func health(t *testing.T, d *Driver, id string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.Dial(ctx, id, sandbox.AgentPort)
		},
	}}
	resp, err := client.Get("http://sandbox/health")
	if err != nil {
		t.Fatalf("health of %s: %v", id, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("health of %s: %s %q %v", id, resp.Status, body, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := dataDir(t)
	image := makeImage(t, dir)
	d := openDriver(t, dir, image)
	defer closeEmpty(t, d)
	if err := New(Config{DataDir: dir, Images: image}).Open(t.Context()); err == nil || !strings.Contains(err.Error(), "another AgentCube") {
		t.Errorf("second Open of a data directory: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 80))
	if err := New(Config{DataDir: long, Images: image}).Open(t.Context()); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Open with a long data directory: %v", err)
	}
}

func TestLimitsAreSet(t *testing.T) {
	dir := dataDir(t)
	const budget = 1 << 30
	d := New(Config{DataDir: dir, Images: makeImage(t, dir), MemoryBudget: budget})
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer closeEmpty(t, d)
	file := "memory.limit_in_bytes"
	if d.groups.v2 {
		file = "memory.max"
	}
	got, err := os.ReadFile(filepath.Join(d.groups.roots["memory"], d.groups.parent, file))
	if err != nil || strings.TrimSpace(string(got)) != itoa(budget) {
		t.Errorf("memory of all sandboxes = %q, %v; want %d", got, err, budget)
	}
	spec := testSpec(t, "limits")
	spec.Resources = sandbox.Resources{CPUMillis: 500, MemoryBytes: 128 << 20, DiskBytes: 32 << 20, Processes: 20}
	if _, err := d.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	at := placeOf(t, d, spec.ID)
	for _, v := range d.groups.values(spec.Resources) {
		if v.optional {
			continue
		}
		got, err := os.ReadFile(filepath.Join(d.groups.roots[v.controller], d.groups.parent, at.Run, v.file))
		if err != nil || strings.TrimSpace(string(got)) != v.value {
			t.Errorf("%s = %q, %v; want %q", v.file, got, err, v.value)
		}
	}
	members, pid := d.groups.members(at.Run), at.PID
	for _, p := range descendants(pid) {
		found := false
		for _, m := range members {
			found = found || m == p
		}
		if !found {
			t.Errorf("process %d of the sandbox is not in its control group", p)
		}
	}
}

// The sandbox process must have neither the host's file system nor its network.
func TestSentryIsConfined(t *testing.T) {
	dir := dataDir(t)
	d := openDriver(t, dir, makeImage(t, dir))
	defer closeEmpty(t, d)
	if _, err := d.Create(t.Context(), testSpec(t, "confined")); err != nil {
		t.Fatal(err)
	}
	pid := placeOf(t, d, "confined").PID
	status, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status of the sentry lacks %q", want)
		}
	}
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts", "user"} {
		ours, _ := os.Readlink("/proc/self/ns/" + ns)
		theirs, err := os.Readlink(filepath.Join("/proc", itoa(pid), "ns", ns))
		if err != nil || ours == theirs {
			t.Errorf("namespace %s is the host's (%s, %v)", ns, theirs, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join("/proc", itoa(pid), "root"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "proc" && e.Name() != "etc" && e.Name() != "sys" && e.Name() != "dev" && e.Name() != "tmp" {
			t.Errorf("the sentry's root holds %s", e.Name())
		}
	}
}

// A sandbox that is killed from outside is reported lost or stopped, and its
// remains can be deleted.
func TestKilledSandboxIsReported(t *testing.T) {
	dir := dataDir(t)
	d := openDriver(t, dir, makeImage(t, dir))
	defer closeEmpty(t, d)
	if _, err := d.Create(t.Context(), testSpec(t, "killed")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(placeOf(t, d, "killed").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case exit := <-d.Exits():
		if exit.ID != "killed" || exit.Reason != sandbox.ExitStopped {
			t.Errorf("exit = %+v", exit)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no exit was reported")
	}
	got, err := d.Get(t.Context(), "killed")
	if err != nil || got.Exit == nil {
		t.Errorf("Get after the end = %+v, %v", got, err)
	}
}

// gVisor's process for a sandbox inherits a socket under the number that it has
// in ours, and needs some numbers for itself: sandboxes start whatever numbers
// are free here.
func TestCreateWithManyOpenFiles(t *testing.T) {
	dir := dataDir(t)
	d := openDriver(t, dir, makeImage(t, dir))
	defer closeEmpty(t, d)
	last, tried := 0, 0
	for last < 256 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if last = int(f.Fd()); last < 230 {
			continue
		}
		id := "s-" + itoa(last)
		if _, err := d.Create(t.Context(), testSpec(t, id)); err != nil {
			t.Fatalf("with %d open files: %v", last, err)
		}
		if err := d.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		tried++
	}
	if tried < 20 {
		t.Errorf("only %d sandboxes were made", tried)
	}
}

// Sandboxes that start side by side do not get each other's sockets.
func TestSandboxesShareNoSockets(t *testing.T) {
	dir := dataDir(t)
	d := openDriver(t, dir, makeImage(t, dir))
	defer closeEmpty(t, d)
	var wg sync.WaitGroup
	const count = 8
	for i := range count {
		wg.Go(func() {
			if _, err := d.Create(t.Context(), testSpec(t, "side-"+itoa(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	owner := map[string]int{}
	for i := range count {
		if t.Failed() {
			return
		}
		pid := placeOf(t, d, "side-"+itoa(i)).PID
		fds, err := filepath.Glob(filepath.Join("/proc", itoa(pid), "fd", "*"))
		if err != nil || len(fds) == 0 {
			t.Fatalf("no open files of process %d: %v", pid, err)
		}
		for _, fd := range fds {
			file, err := os.Readlink(fd)
			if err != nil || !strings.HasPrefix(file, "socket:") {
				continue
			}
			if other, seen := owner[file]; seen && other != pid {
				t.Errorf("process %d has %s, which is also process %d's", pid, file, other)
			}
			owner[file] = pid
		}
	}
}
