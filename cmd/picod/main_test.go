package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// guard is how long a test waits for something that must happen at all.
const guard = 30 * time.Second

// binary builds the real thing once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "picod-binary-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "picod")
	cmd := exec.Command("go", "build", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

func build(t *testing.T) string {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func newKey(t *testing.T) (key *rsa.PrivateKey, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// daemon is a running picod.
type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	log  *bytes.Buffer
	key  *rsa.PrivateKey
	done chan struct{}

	stopped bool
	wrapped bool // the process that was started is not picod itself
}

// launch starts picod through a wrapper, if there is one, and waits until it
// listens.
func launch(t *testing.T, key *rsa.PrivateKey, env []string, wrapper []string, args ...string) *daemon {
	t.Helper()
	argv := append(append(append([]string{}, wrapper...), build(t), "-port", "0"), args...)
	d := &daemon{t: t, cmd: exec.Command(argv[0], argv[1:]...), log: &bytes.Buffer{}, key: key, done: make(chan struct{}), wrapped: slices.Contains(wrapper, "--fork")}
	d.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "MINE=1"}, env...)
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		defer close(d.done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(d.log, lines.Text())
			var entry struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "serving" {
				address <- entry.Address
			}
		}
	}()
	t.Cleanup(d.stop)
	select {
	case a := <-address:
		d.url = "http://127.0.0.1" + a[strings.LastIndexByte(a, ':'):]
	case <-d.done:
		t.Fatalf("picod ended: %s", d.log)
	case <-time.After(guard):
		t.Fatal("picod does not listen")
	}
	return d
}

// stop ends picod as a container engine does.
func (d *daemon) stop() {
	d.t.Helper()
	if d.stopped {
		return
	}
	d.stopped = true
	pid := d.cmd.Process.Pid
	// A wrapper that forked stays, and ignores the signal: picod is its child.
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err == nil && d.wrapped {
		if child, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			pid = child
		}
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(guard):
		d.t.Errorf("picod does not end: %s", d.log)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	_ = d.cmd.Wait()
}

// call makes one signed request.
func (d *daemon) call(method, path string, body any) (int, []byte) {
	d.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequest(method, d.url+path, bytes.NewReader(text))
	if err != nil {
		d.t.Fatal(err)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"exp": time.Now().Add(time.Minute).Unix()}).SignedString(d.key)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Timeout: guard, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		d.t.Fatalf("%v; picod says %s", err, d.log)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// shell runs a script and returns what it wrote.
func (d *daemon) shell(script string) string {
	d.t.Helper()
	status, body := d.call("POST", "/api/execute", map[string]any{"command": []string{"bash", "-c", script}, "timeout": "20s"})
	var out struct{ Stdout, Stderr string }
	if err := json.Unmarshal(body, &out); err != nil || status != 200 {
		d.t.Fatalf("execute: %d %s", status, body)
	}
	return out.Stdout + out.Stderr
}

// workspace is a directory that every user may reach.
func workspace(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "picod-main-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "w")
}

// own gives picod mounts and account files of its own, so that a test changes
// nothing on the machine; with pid it is also process 1.
func own(pid bool) []string {
	argv := []string{"unshare", "--mount"}
	if pid {
		argv = append(argv, "--pid", "--fork", "--kill-child", "--mount-proc")
	}
	return append(argv, "sh", "-c", "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w && mount -t overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w none /etc && exec \"$@\"", "sh")
}

func TestDaemon(t *testing.T) {
	for name, pid := range map[string]bool{"child": false, "process 1": true} {
		t.Run(name, func(t *testing.T) {
			key, public := newKey(t)
			dir := workspace(t)
			env := []string{"PICOD_AUTH_PUBLIC_KEY=" + public, "PICOD_OTHER=x"}
			d := launch(t, key, env, own(pid), "--workspace", dir, "--run-as", "54321:54321", "--max-processes", "40", "--cgroup-dir", dir+"-cgroup")
			got := d.shell("id -u; pwd; echo $HOME; env | grep -c PICOD; echo $MINE; grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status; ulimit -c; [ $(ulimit -Hn) -le 65536 ] && echo bounded")
			want := "54321\n" + dir + "\n" + dir + "\n0\n1\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n0\nbounded\n"
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := d.shell("kill -9 " + d.pid(pid) + " || echo alive; cat /proc/" + d.pid(pid) + "/environ || echo hidden"); !strings.Contains(got, "alive") || !strings.Contains(got, "hidden") {
				t.Errorf("got %q", got)
			}
			// Orphans: they end up with picod, which collects them.
			d.shell("for i in $(seq 30); do (setsid sleep 0.01 &) ; done")
			for end := time.Now().Add(guard); ; time.Sleep(10 * time.Millisecond) {
				zombies := d.shell("ps -eo stat,ppid | awk '$1 ~ /^Z/ && $2 == " + d.pid(pid) + "' | wc -l")
				if zombies == "0\n" {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("zombies are left: %s", zombies)
				}
			}
			if got := d.shell(":(){ :|:& };: 2>/dev/null; sleep 1; echo bombed"); !strings.Contains(got, "bombed") && !strings.Contains(got, "fork") {
				t.Errorf("got %q", got)
			}
			if status, _ := d.call("GET", "/health", nil); status != 200 {
				t.Errorf("health: %d", status)
			}
			d.stop()
			if strings.Contains(d.log.String(), "cannot") {
				t.Errorf("picod says %s", d.log)
			}
			if left := having(t, dir); len(left) > 0 {
				t.Errorf("left running: %v", left)
			}
		})
	}
}

// having lists living processes whose working directory is dir.
func having(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err != nil || target != dir
	})
}

// pid is picod's process id as its commands see it.
func (d *daemon) pid(first bool) string {
	if first {
		return "1"
	}
	return strconv.Itoa(d.cmd.Process.Pid)
}

func TestAccount(t *testing.T) {
	key, public := newKey(t)
	dir := workspace(t)
	d := launch(t, key, []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, own(true), "-workspace="+dir, "-run-as=54321:54322", "-cgroup-dir=")
	got := d.shell("whoami; id -gn; grep 54321 /etc/passwd; grep 54322 /etc/group; echo ~ $USER $LOGNAME; stat -c '%a %u' /etc/passwd /etc/group")
	want := "agent\nagent\nagent:x:54321:54322:AgentCube:" + dir + ":/bin/bash\nagent:x:54322:\n" + dir + " agent agent\n644 0\n644 0\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestKeyForms starts picod with every way of giving it keys.
func TestKeyForms(t *testing.T) {
	_, public := newKey(t)
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, []byte(public), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		env, args  []string
		init       int // status of POST /init
		api        int // status of an unsigned request
		wrong      string
		withoutRun bool
	}{
		{name: "file", args: []string{"-bootstrap-key", file}, init: 401, api: 403},
		{name: "variable", env: []string{"PICOD_BOOTSTRAP_KEY=" + public}, init: 401, api: 403},
		{name: "named variable", env: []string{"THE_KEY=" + public}, args: []string{"--bootstrap-key-env", "THE_KEY"}, init: 401, api: 403},
		{name: "router", env: []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, init: 404, api: 401},
		{name: "none", wrong: "read bootstrap key"},
		{name: "unreadable", args: []string{"-bootstrap-key", "/no/such"}, env: []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, wrong: "read bootstrap key"},
		{name: "bad router key", env: []string{"PICOD_AUTH_PUBLIC_KEY=x"}, wrong: "read PICOD_AUTH_PUBLIC_KEY"},
		{name: "bad bootstrap key", env: []string{"PICOD_BOOTSTRAP_KEY=x"}, wrong: "read bootstrap key"},
		{name: "bad user", env: []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, args: []string{"-run-as", "nobody"}, wrong: "uid:gid"},
		{name: "bad flag", env: []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, args: []string{"-no-such"}, wrong: "not defined"},
		{name: "argument", env: []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, args: []string{"x"}, wrong: "unexpected argument"},
		{name: "bad limit", env: []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, args: []string{"-max-processes", "-1"}, wrong: "max-processes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"-workspace", workspace(t), "-cgroup-dir", ""}, tt.args...)
			if tt.wrong != "" {
				cmd := exec.Command(build(t), args...)
				cmd.Env = tt.env
				out, err := cmd.CombinedOutput()
				if err == nil || !strings.Contains(string(out), tt.wrong) {
					t.Errorf("got %v %s", err, out)
				}
				return
			}
			d := launch(t, nil, tt.env, nil, args...)
			for path, want := range map[string]int{"/init": tt.init, "/api/execute": tt.api} {
				resp, err := http.Post(d.url+path, "application/json", nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
				}
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
}

// TestKeyVariableIsHidden: not even a variable of another name that held the
// key is handed to commands.
func TestKeyVariableIsHidden(t *testing.T) {
	key, public := newKey(t)
	router, routerPublic := newKey(t)
	d := launch(t, router, []string{"THE_KEY=" + public, "PICOD_AUTH_PUBLIC_KEY=" + routerPublic, "PICOD_SANDBOX_ID=b1"}, nil,
		"-bootstrap-key-env", "THE_KEY", "-workspace", workspace(t), "-cgroup-dir", "")
	if got := d.shell("env | grep -E 'KEY|PICOD' || echo none"); got != "none\n" {
		t.Errorf("got %q", got)
	}
	session, sessionPublic := newKey(t)
	for _, try := range []struct {
		id   string
		want int
	}{{"b2", 401}, {"b1", 200}} {
		id, want := try.id, try.want
		claims := jwt.MapClaims{"exp": time.Now().Add(time.Minute).Unix(), "sandboxId": id,
			"session_public_key": base64.RawStdEncoding.EncodeToString([]byte(sessionPublic))}
		token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest("POST", d.url+"/init", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("sandbox %s: %d, want %d", id, resp.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	d.key = session
	if got := d.shell("echo in"); got != "in\n" {
		t.Errorf("got %q", got)
	}
}

// TestDrain: a request that runs when picod is told to end gets its answer, and
// what it left in the background ends.
func TestDrain(t *testing.T) {
	key, public := newKey(t)
	dir := workspace(t)
	d := launch(t, key, []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, nil, "-workspace", dir, "-cgroup-dir", dir+"-cgroup")
	answer := make(chan string)
	go func() {
		answer <- d.shell("sleep 1000 & echo $! > bg; touch up; while [ ! -e go ]; do sleep 0.01; done; echo finished")
	}()
	for end := time.Now().Add(guard); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(dir + "/up"); err == nil {
			break
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "finished\n" {
		t.Errorf("got %q", got)
	}
	<-d.done
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("picod ended with %v: %s", err, d.log)
	}
	text, err := os.ReadFile(dir + "/bg")
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(text))
	for end := time.Now().Add(guard); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the background process %s goes on", pid)
		}
	}
	if left, _ := filepath.Glob(dir + "-cgroup/*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDependencies: picod stays small.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		allowed := path == "github.com/volcano-sh/agentcube/internal/trace" // and nothing that sends traces
		for _, prefix := range []string{
			"github.com/volcano-sh/agentcube/cmd/picod", "github.com/volcano-sh/agentcube/api", "github.com/volcano-sh/agentcube/internal/picod",
			"github.com/volcano-sh/agentcube/internal/auth/pubkey", "github.com/volcano-sh/agentcube/internal/hostlink", "github.com/volcano-sh/agentcube/internal/httpguard", "github.com/volcano-sh/agentcube/internal/trunk",
			"github.com/xtaci/smux", "github.com/golang-jwt/jwt/v5", "golang.org/x/sys/unix",
		} {
			allowed = allowed || path == prefix || strings.HasPrefix(path, prefix+"/")
		}
		if !allowed {
			t.Errorf("picod imports %s", path)
		}
	}
}
