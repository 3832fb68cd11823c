package picod

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/picod/token"
)

// begin sends a signed init request with a body.
func (b *box) begin(body map[string]any, claims jwt.MapClaims) reply {
	b.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	all := jwt.MapClaims{"body_sha256": hashOf(text)}
	for name, value := range claims {
		all[name] = value
	}
	return b.initialize(all, string(text))
}

type given map[string]any

func file(path, content string, mode int) given {
	return given{"path": path, "content": []byte(content), "mode": mode}
}

// TestInitGives: variables and files are there from the first command on, for
// either kind of session, and are those of the user of commands.
func TestInitGives(t *testing.T) {
	old := unix.Umask(0o077) // a mode must not be narrowed by it
	defer unix.Umask(old)
	for mode, claims := range map[string]jwt.MapClaims{"key-bound": {"jti": nil}, "managed": {"session_id": "s1", "jti": nil}} {
		t.Run(mode, func(t *testing.T) {
			b := bootstrap(t, func(c *Config) { c.RunAs = &Account{UID: 1000, GID: 1000} })
			if err := os.WriteFile(b.dir+"/there", []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			got := b.begin(map[string]any{
				"env": given{"A": "template", "B": "template"}, "sessionEnv": given{"B": "session", "C": "", "FROM_DAEMON": "no"},
				"files": []given{file("deep/er/run.sh", "echo run $B\n", 0o755), file(b.dir+"/inside", "x", 0o600),
					file("/etc/conf", "y", 0o644), file("empty", "", 0o444), file("there", "after", 0o644)},
			}, jwt.MapClaims{"mode": mode})
			var answer initResponse
			if err := json.Unmarshal(got.body, &answer); err != nil || got.StatusCode != 200 || answer.Variables != 3 || answer.Files != 5 {
				t.Fatalf("init: %d %s", got.StatusCode, got.body)
			}
			script := `echo "$A $B ${C-unset} $FROM_DAEMON"; ./deep/er/run.sh; cat inside etc/conf empty there; echo; ` +
				`stat -c '%n %u:%g %a' deep deep/er deep/er/run.sh inside etc etc/conf empty there`
			text, err := json.Marshal(map[string]any{"command": []string{"bash", "-c", script}, "env": given{"A": "own"}})
			if err != nil {
				t.Fatal(err)
			}
			claims["body_sha256"] = hashOf(text)
			done := b.send("POST", "/api/execute", b.bearer(claims), strings.NewReader(string(text)))
			var out executeResponse
			if err := json.Unmarshal(done.body, &out); err != nil {
				t.Fatalf("execute: %d %s", done.StatusCode, done.body)
			}
			want := "own session  no\nrun session\nxyafter\n" + strings.ReplaceAll(
				"deep U 755\ndeep/er U 755\ndeep/er/run.sh U 755\ninside U 600\netc U 755\netc/conf U 644\nempty U 444\nthere U 644\n", "U", "1000:1000")
			if out.Stdout != want || out.Stderr != "" {
				t.Errorf("the first command sees %q %q, want %q", out.Stdout, out.Stderr, want)
			}
		})
	}
}

// TestInitFileFails: with a file that cannot be written there is no session, and
// the answer says which one it was. What leads out changes nothing there.
func TestInitFileFails(t *testing.T) {
	for _, tt := range []struct {
		name, path, reason string
		mode, status       int
	}{
		{"a folder", "dir", "PATH_IS_DIRECTORY", 0o644, 500},
		{"the workspace", ".", "PATH_IS_DIRECTORY", 0o644, 500},
		{"below a file", "file/x", "NOT_A_DIRECTORY", 0o644, 400},
		{"a pipe", "pipe", "NOT_A_REGULAR_FILE", 0o644, 400},
		{"out", "../x", "PATH_ESCAPES_WORKSPACE", 0o644, 400},
		{"through a link", "out/x", "PATH_ESCAPES_WORKSPACE", 0o644, 400},
		{"a link", "link", "PATH_ESCAPES_WORKSPACE", 0o644, 400},
		{"NUL", "a\x00b", "INVALID_PATH", 0o644, 400},
		{"a long name", strings.Repeat("x", 300), "INVALID_PATH", 0o644, 400},
		{"the first, as an absolute path", "/first", "DUPLICATE_PATH", 0o644, 400},
		{"a mode", "x", "INVALID_MODE", 0o4755, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bootstrap(t, nil)
			outside := filepath.Dir(b.dir)
			for _, err := range []error{
				os.Mkdir(b.dir+"/dir", 0o755), os.WriteFile(b.dir+"/file", nil, 0o644), unix.Mkfifo(b.dir+"/pipe", 0o644),
				os.Symlink(outside, b.dir+"/out"), os.Symlink(outside+"/new", b.dir+"/link"),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			got := b.begin(map[string]any{"files": []given{file("first", "1", 0o644), file(tt.path, "2", tt.mode)}}, nil)
			got.expect(t, tt.status, "files[1]: ", tt.reason)
			if got.json(t)["file"] != float64(1) {
				t.Errorf("the answer is %s, want it to name file 1", got.body)
			}
			b.get("/api/files?path=.").expect(t, 403, "Server not initialized", "NOT_INITIALIZED")
			if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
				t.Errorf("outside the workspace there is %v, %v", names, err)
			}
			for _, name := range b.tree() {
				if strings.Contains(name, "picod-upload") {
					t.Errorf("left behind: %s", name)
				}
			}
		})
	}
}

// TestInitGivesNothingUnsigned: neither do bodies that are not those of the token.
func TestInitGivesNothingUnsigned(t *testing.T) {
	b := bootstrap(t, nil)
	const body = `{"sessionEnv":{"GREETING":"forged"},"files":[{"path":"forged","content":""}]}`
	b.initialize(jwt.MapClaims{"body_sha256": hashOf([]byte("{}"))}, body).expect(t, 401, "Invalid token", "INVALID_TOKEN")
	bad := b.begin(map[string]any{"sessionEnv": given{"A": "a\x00b"}, "files": []given{file("forged", "", 0o644)}}, nil)
	bad.expect(t, 400, "Invalid environment variable", "INVALID_ENV")
	if got := b.initialize(nil, body); got.StatusCode != 200 || strings.Contains(string(got.body), "files") {
		t.Fatalf("init: %d %s", got.StatusCode, got.body)
	}
	if got := b.shell("echo .$GREETING; ls").Stdout; got != ".\n" {
		t.Errorf("the session has %q", got)
	}
	b.begin(map[string]any{"files": []given{file("late", "", 0o644)}}, nil).expect(t, 403, "Server already initialized", "ALREADY_INITIALIZED")
	if tree := b.tree(); len(tree) > 0 {
		t.Errorf("the workspace holds %q", tree)
	}
}

// TestCopyKeepsVariables: a copy of a sandbox has the variables that the session
// was given, and its own over them; those of the template are the copy's.
func TestCopyKeepsVariables(t *testing.T) {
	state := t.TempDir() + "/state"
	b := bootstrap(t, func(c *Config) { c.StateDir = state })
	begin := func(env, own given, want string) {
		t.Helper()
		if got := b.begin(map[string]any{"env": env, "sessionEnv": own}, nil); got.StatusCode != 200 {
			t.Fatalf("init: %s", got.body)
		}
		if got := b.shell(`echo "$A,$B,$C,$T,$U"`).Stdout; got != want+"\n" {
			t.Errorf("the session has %q, want %q", got, want)
		}
	}
	assume := func() {
		t.Helper()
		if err := b.srv.gate.Assume(token.Identity{Bootstrap: &bootstrapKey().PublicKey}); err != nil {
			t.Fatal(err)
		}
	}
	assume() // of what was nobody's
	begin(given{"A": "t", "T": "t"}, given{"A": "1", "B": "1"}, "1,1,,t,")
	assume()
	assume()
	begin(given{"A": "u", "U": "u"}, given{"B": "2", "C": ""}, "1,2,,,u")
	b.close()
	// As the daemon knows it after a restart.
	b = bootstrap(t, func(c *Config) { c.StateDir = state })
	assume()
	begin(nil, nil, "1,2,,,")
}

// TestVariablesOfPython: they reach runs of Python that are forked from a started
// interpreter, also those that act when an interpreter starts.
func TestVariablesOfPython(t *testing.T) {
	b := bootstrap(t, func(c *Config) {
		c.RunAs, c.PythonZygote, c.CgroupDir = &Account{UID: 1000, GID: 1000}, true, t.TempDir()
	})
	if err := b.srv.Prepared(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.begin(map[string]any{"sessionEnv": given{"A": "1", "PYTHONOPTIMIZE": "2", "FROM_DAEMON": "no"}}, nil); got.StatusCode != 200 {
		t.Fatalf("init: %s", got.body)
	}
	code := "import os, sys; print(os.environ['A'], os.environ['FROM_DAEMON'], os.environ['HOME'], sys.flags.optimize)"
	for _, tt := range []struct {
		env  given
		want string
	}{
		{nil, "1 no " + b.dir + " 2\n"},
		{given{"A": "2", "PYTHONOPTIMIZE": ""}, "2 no " + b.dir + " 0\n"},
		{given{"HOME": "/nowhere"}, "1 no /nowhere 2\n"},
	} {
		for range 2 {
			if got := b.execute(map[string]any{"command": []string{"python3", "-c", code}, "env": tt.env}); got.Stdout != tt.want {
				t.Errorf("with %v: %q %q, want %q", tt.env, got.Stdout, got.Stderr, tt.want)
			}
		}
	}
}
