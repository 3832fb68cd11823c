package picod

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRoutes(t *testing.T) {
	b := start(t, nil)
	health := b.send("GET", "/health", map[string]string{"Accept-Encoding": "gzip"}, nil)
	m := health.json(t)
	if health.StatusCode != 200 || m["status"] != "ok" || m["service"] != "PicoD" || m["version"] != "0.0.1" || health.Header.Get("Content-Encoding") != "" {
		t.Errorf("health: %d %s", health.StatusCode, health.body)
	}
	if _, err := time.ParseDuration(m["uptime"].(string)); err != nil {
		t.Error(err)
	}
	for _, route := range []string{
		"HEAD /health", "POST /health", "GET /", "GET /api", "GET /api/execute", "DELETE /api/files/x", "PUT /api/files",
		"HEAD /api/files/x", "POST /api/files/x", "GET /api/unknown", "DELETE /api/files", "GET /health/", "OPTIONS /api/execute",
	} {
		method, path, _ := strings.Cut(route, " ")
		got := b.send(method, path, b.bearer(nil), nil)
		if got.StatusCode != 404 || method != "HEAD" && string(got.body) != "404 page not found\n" {
			t.Errorf("%s: %d %q", route, got.StatusCode, got.body)
		}
	}
	for _, path := range []string{"/api/execute/", "/api/files/"} {
		if got := b.send("POST", path, nil, nil); got.StatusCode != 307 || got.Header.Get("Location") != strings.TrimSuffix(path, "/") {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.Header.Get("Location"))
		}
	}
}

func TestGzip(t *testing.T) {
	b := start(t, nil)
	got := b.send("POST", "/api/execute", map[string]string{"Accept-Encoding": "gzip, deflate"}, nil)
	if got.StatusCode != 401 || got.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("got %d %v", got.StatusCode, got.Header)
	}
	z, err := gzip.NewReader(bytes.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !strings.Contains(string(text), "Missing Authorization header") {
		t.Errorf("%q %v", text, err)
	}
	for header, want := range map[string]bool{
		"": false, "gzip": true, "br, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "identity": false, "x-gzip": false,
	} {
		if acceptsGzip(header) != want {
			t.Errorf("%q: %v", header, !want)
		}
	}
}

func TestRequestID(t *testing.T) {
	b := start(t, nil)
	for id, kept := range map[string]bool{"abc-1.2_3:4": true, "a b": false, strings.Repeat("x", 129): false, "\"": false} {
		got := b.send("POST", "/api/execute", map[string]string{"X-Request-Id": id}, nil)
		if (got.json(t)["requestId"] == id) != kept {
			t.Errorf("%q: %s", id, got.body)
		}
	}
}

func TestExecute(t *testing.T) {
	b := start(t, nil)
	for _, tt := range []struct {
		name     string
		body     map[string]any
		out, err string
		code     int
	}{
		{"no shell", map[string]any{"command": []string{"echo", "$HOME;", "a b"}}, "$HOME; a b\n", "", 0},
		{"exit code", map[string]any{"command": []string{"sh", "-c", "echo e >&2; exit 3"}}, "", "e\n", 3},
		{"signal", map[string]any{"command": []string{"sh", "-c", "kill -9 $$"}}, "", "", -1},
		{"not found", map[string]any{"command": []string{"nothing-like-it"}}, "", `exec: "nothing-like-it": executable file not found in $PATH`, 1},
		{"empty name", map[string]any{"command": []string{""}}, "", `exec: "": executable file not found in $PATH`, 1},
		{"default directory", map[string]any{"command": []string{"pwd"}}, b.dir + "\n", "", 0},
		{"new directory", map[string]any{"command": []string{"pwd"}, "working_dir": "a/b"}, b.dir + "/a/b\n", "", 0},
		{"absolute directory inside", map[string]any{"command": []string{"pwd"}, "working_dir": b.dir + "/a"}, b.dir + "/a\n", "", 0},
		{"absolute directory outside", map[string]any{"command": []string{"pwd"}, "working_dir": "/etc"}, b.dir + "/etc\n", "", 0},
		{"pwd variable", map[string]any{"command": []string{"sh", "-c", "echo $PWD"}, "working_dir": "a", "env": map[string]string{"PWD": "x"}}, b.dir + "/a\n", "", 0},
		{"environment", map[string]any{"command": []string{"sh", "-c", "echo $FROM_DAEMON $X"}, "env": map[string]string{"X": "1=2"}}, "yes 1=2\n", "", 0},
		{"environment wins", map[string]any{"command": []string{"sh", "-c", "echo $FROM_DAEMON"}, "env": map[string]string{"FROM_DAEMON": "no"}}, "no\n", "", 0},
		{"unknown fields", map[string]any{"command": []string{"true"}, "future": 1}, "", "", 0},
		{"no input", map[string]any{"command": []string{"cat"}}, "", "", 0},
		{"input", map[string]any{"command": []string{"cat"}, "stdin": []byte("a\x00b")}, "a\x00b", "", 0},
		{"unicode", map[string]any{"command": []string{"echo", "naïve €𝄞 <&>"}}, "naïve €𝄞 <&>\n", "", 0},
		{"timeout", map[string]any{"command": []string{"sh", "-c", "echo part; sleep 60"}, "timeout": "2.5s"}, "part\n", "Command timed out after 2.5 seconds", 124},
		{"timeout after text", map[string]any{"command": []string{"sh", "-c", "printf x >&2; sleep 60"}, "timeout": "3s"}, "", "x\nCommand timed out after 3 seconds", 124},
		{"no time", map[string]any{"command": []string{"true"}, "timeout": "0s"}, "", "Command timed out after 0 seconds", 124},
		{"python float", map[string]any{"command": []string{"sleep", "60"}, "timeout": "1e-05s"}, "", "Command timed out after 0.00001 seconds", 124},
		{"python whole float", map[string]any{"command": []string{"true"}, "timeout": "30.0s"}, "", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			got := b.execute(tt.body)
			if got.Stdout != tt.out || got.Stderr != tt.err || got.ExitCode != tt.code {
				t.Errorf("got %q %q %d", got.Stdout, got.Stderr, got.ExitCode)
			}
			from, err1 := time.Parse(time.RFC3339Nano, got.StartTime)
			to, err2 := time.Parse(time.RFC3339Nano, got.EndTime)
			if err1 != nil || err2 != nil || to.Before(from) || got.Duration < 0 {
				t.Errorf("times: %q %q %v", got.StartTime, got.EndTime, got.Duration)
			}
			fields := 6
			if started, ok := got.raw["start_error"]; ok {
				fields++
				if started != "not_found" {
					t.Errorf("start_error = %v", started)
				}
			}
			if len(got.raw) != fields {
				t.Errorf("extra fields: %v", got.raw)
			}
		})
	}
}

func TestExecuteRefused(t *testing.T) {
	b := start(t, nil)
	if err := os.Symlink("/usr", filepath.Join(b.dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, body string
		status     int
		text       string
		reason     string
	}{
		{"not JSON", "x", 400, "Invalid request body", "INVALID_REQUEST"},
		{"empty", "", 400, "Invalid request body", "INVALID_REQUEST"},
		{"absent command", "{}", 400, "Invalid request body", "INVALID_REQUEST"},
		{"null command", `{"command":null}`, 400, "Invalid request body", "INVALID_REQUEST"},
		{"text command", `{"command":"ls"}`, 400, "Invalid request body", "INVALID_REQUEST"},
		{"empty command", `{"command":[]}`, 400, "command cannot be empty", "EMPTY_COMMAND"},
		{"NUL", `{"command":["a\u0000b"]}`, 400, "Invalid request body", "INVALID_REQUEST"},
		{"bare number", `{"command":["true"],"timeout":"10"}`, 400, "Invalid timeout format", "INVALID_TIMEOUT"},
		{"number", `{"command":["true"],"timeout":10}`, 400, "Invalid request body", "INVALID_REQUEST"},
		{"word", `{"command":["true"],"timeout":"x"}`, 400, "Invalid timeout format", "INVALID_TIMEOUT"},
		{"hex float", `{"command":["true"],"timeout":"0x1e1s"}`, 400, "Invalid timeout format", "INVALID_TIMEOUT"},
		{"negative", `{"command":["true"],"timeout":"-1s"}`, 400, "Invalid timeout format", "INVALID_TIMEOUT"},
		{"huge float", `{"command":["true"],"timeout":"1e300s"}`, 400, "Invalid timeout format", "INVALID_TIMEOUT"},
		{"too long", `{"command":["true"],"timeout":"1000000h"}`, 400, "Invalid timeout: the maximum is 8h0m0s", "TIMEOUT_TOO_LONG"},
		{"above the workspace", `{"command":["true"],"working_dir":"../x"}`, 400, "Invalid working directory", "INVALID_WORKING_DIRECTORY"},
		{"link to the outside", `{"command":["true"],"working_dir":"out"}`, 400, "Invalid working directory", "INVALID_WORKING_DIRECTORY"},
		{"through a link", `{"command":["true"],"working_dir":"out/bin"}`, 400, "Invalid working directory", "INVALID_WORKING_DIRECTORY"},
		{"new through a link", `{"command":["true"],"working_dir":"out/picod-new"}`, 500, "Failed to create working directory", "PATH_ESCAPES_WORKSPACE"},
		{"a file", `{"command":["true"],"working_dir":"file"}`, 500, "Failed to create working directory", "NOT_A_DIRECTORY"},
		{"bad variable", `{"command":["true"],"env":{"A=B":"x"}}`, 400, "Invalid environment variable", "INVALID_ENV"},
		{"bad input", `{"command":["true"],"stdin":"*"}`, 400, "Invalid request body", "INVALID_REQUEST"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.send("POST", "/api/execute", b.bearer(nil), strings.NewReader(tt.body)).expect(t, tt.status, tt.text, tt.reason)
		})
	}
}

func TestTooLarge(t *testing.T) {
	b := start(t, func(c *Config) { c.MaxUploadBytes = 40 << 20 })
	const exact = "maximum allowed size is 33554432 bytes"
	check := func(got reply, detail string) {
		t.Helper()
		got.expect(t, 413, "request body too large", "BODY_TOO_LARGE")
		if m := got.json(t); m["detail"] != detail || m["code"] != nil {
			t.Errorf("got %s", got.body)
		}
	}
	big := func(n int64) io.Reader { return io.LimitReader(zeros{}, n) }
	for _, path := range []string{"/api/execute", "/api/files"} {
		req, _ := http.NewRequest("POST", b.url+path, big(MaxBody+1))
		req.ContentLength = MaxBody + 1
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		check(reply{resp, text}, exact) // before any look at a token
		check(b.send("POST", path, b.bearer(nil), io.MultiReader(big(MaxBody+1))), exact)
	}
	form := b.bearer(nil)
	form["Content-Type"] = "multipart/form-data; boundary=x"
	head := "--x\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\nbig\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n"
	check(b.send("POST", "/api/files", form, io.MultiReader(strings.NewReader(head), big(41<<20))), "maximum allowed size is 41943040 bytes")
	if left, err := os.ReadDir(b.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestOutputFields(t *testing.T) {
	b := start(t, func(c *Config) { c.MaxOutputBytes = 1000 })
	got := b.shell(`printf 'a\377b'; printf fine >&2`)
	if got.Stdout != "a\uFFFDb" || got.StdoutBase64 != base64.StdEncoding.EncodeToString([]byte("a\xffb")) || got.Stderr != "fine" || len(got.raw) != 7 {
		t.Errorf("binary output: %v", got.raw)
	}
	got = b.shell(`head -c 5000 /dev/zero | tr '\0' x; echo LAST; echo short >&2`)
	if !got.StdoutTruncated || got.StdoutBytes != 5005 || got.StderrTruncated || len(got.raw) != 8 || !strings.HasPrefix(got.Stdout, "xxx") ||
		!strings.HasSuffix(got.Stdout, "xLAST\n\n[output truncated: 1000 of 5005 bytes kept]\n") {
		t.Errorf("truncated output: %v", got.raw)
	}
	got = b.shell(`for i in $(seq 400); do printf '€𝄞é' >&2; done`)
	if !got.StderrTruncated || got.StderrBytes != 3600 || got.StderrBase64 != "" {
		t.Errorf("truncated unicode: %v", got.raw)
	}
}

func TestTooManyExecutions(t *testing.T) {
	b := start(t, func(c *Config) { c.MaxConcurrent = 2 })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { b.shell("touch $$.up; while [ ! -e go ]; do sleep 0.01; done") })
	}
	for end := time.Now().Add(guard); ; time.Sleep(time.Millisecond) {
		if up, _ := filepath.Glob(b.dir + "/*.up"); len(up) == 2 || time.Now().After(end) {
			break
		}
	}
	got := b.post("/api/execute", map[string]any{"command": []string{"true"}})
	if err := os.WriteFile(b.dir+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got.expect(t, 429, "too many commands", "TOO_MANY_EXECUTIONS")
	if got.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	wg.Wait()
	if got := b.shell("echo again").Stdout; got != "again\n" {
		t.Errorf("got %q", got)
	}
}

// TestClientGone: a command ends with the connection of who asked for it, and
// takes along what it left in the background.
func TestClientGone(t *testing.T) {
	b := start(t, func(c *Config) { c.CgroupDir = t.TempDir() })
	ctx, cancel := context.WithCancel(t.Context())
	text, _ := json.Marshal(map[string]any{"command": []string{"bash", "-c", "setsid sh -c 'echo $$ > a; sleep 1000' & echo $$ > b; sleep 1000"}})
	req, err := http.NewRequestWithContext(ctx, "POST", b.url+"/api/execute", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", b.bearer(nil)["Authorization"])
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := b.http.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	pids := []int{b.pid("a"), b.pid("b")}
	cancel()
	<-done
	for _, pid := range pids {
		b.ended(pid)
	}
}

// pid waits for a process to write its id to a file of the workspace.
func (b *box) pid(file string) int {
	b.t.Helper()
	for end := time.Now().Add(guard); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(b.dir, file))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
	}
	b.t.Fatalf("no process id in %s", file)
	return 0
}

// ended waits for a process to be gone or a zombie.
func (b *box) ended(pid int) {
	b.t.Helper()
	for end := time.Now().Add(guard); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
	}
	b.t.Fatalf("process %d goes on", pid)
}

// TestTimeoutIsBounded: nothing that a command does delays its answer; each row
// used to hold the original up for as long as the tree wanted.
func TestTimeoutIsBounded(t *testing.T) {
	b := start(t, nil)
	for name, script := range map[string]string{
		"pipe holder": "sleep 1000 & sleep 1000",
		"new session": "setsid sleep 1000 & wait",
		"flood":       "yes",
		"both floods": "yes & yes >&2",
		"signals":     "trap '' TERM INT HUP; while :; do sleep 1; done",
		"closed":      "exec >&- 2>&-; sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			got := b.execute(map[string]any{"command": []string{"bash", "-c", script}, "timeout": "0.5s"})
			if got.ExitCode != 124 || !strings.Contains(got.Stderr, "Command timed out after 0.5 seconds") {
				t.Errorf("got %d %q", got.ExitCode, got.Stderr[max(0, len(got.Stderr)-100):])
			}
		})
	}
}

func TestRunAs(t *testing.T) {
	b := start(t, func(c *Config) {
		c.RunAs = &Account{UID: 1000, GID: 1000}
		c.CgroupDir = t.TempDir()
	})
	got := b.shell("id -u; id -g; echo $HOME $USER $LOGNAME; echo hi > own && stat -c %u:%g own; touch /etc/picod-test 2>/dev/null || echo no")
	if want := "1000\n1000\n" + b.dir + " agent agent\n1000:1000\nno\n"; got.Stdout != want {
		t.Errorf("got %q %q", got.Stdout, got.Stderr)
	}
	if got := b.shell("kill -9 " + strconv.Itoa(os.Getpid())); got.ExitCode == 0 {
		t.Error("a command may signal the daemon")
	}
	if got := b.shell("cat /proc/" + strconv.Itoa(os.Getpid()) + "/environ /proc/" + strconv.Itoa(os.Getpid()) + "/mem"); got.ExitCode == 0 {
		t.Error("a command may read the daemon")
	}
	b.post("/api/files", map[string]any{"path": "d/e/f", "content": "", "mode": "0600"})
	got = b.shell("stat -c '%u:%g %a' d d/e d/e/f; rm -r d && echo removed")
	if got.Stdout != "1000:1000 755\n1000:1000 755\n1000:1000 600\nremoved\n" {
		t.Errorf("got %q %q", got.Stdout, got.Stderr)
	}
	if got := b.execute(map[string]any{"command": []string{"sh", "-c", "pwd; touch x; ls"}, "working_dir": "new/dir"}); got.Stdout != b.dir+"/new/dir\nx\n" {
		t.Errorf("got %q %q", got.Stdout, got.Stderr)
	}
}

func BenchmarkExecute(b *testing.B) {
	box := start(b, nil)
	for b.Loop() {
		box.execute(map[string]any{"command": []string{"true"}})
	}
}
