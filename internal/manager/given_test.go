package manager_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/logtest"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/template"
)

// secret is in variables and files, and must not be anywhere else.
const secret = "hunter2-and-more"

func givenBody(fields string) string {
	return `{"name":"simple-codeinterpreter","namespace":"default",` + fields + `}`
}

func variables(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"V%d":""`, i)
	}
	return `"env":{` + strings.Join(list, ",") + `}`
}

func files(n, bytes int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"path":"f%d","content":"%s"}`, i, base64.StdEncoding.EncodeToString(make([]byte, bytes)))
	}
	return `"files":[` + strings.Join(list, ",") + `]`
}

// TestGivenIsChecked: what is wrong is refused by the name of its field, before
// anything is made, and no value is repeated.
func TestGivenIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	file := func(fields string) string { return `"files":[{` + fields + `}]` }
	for _, test := range []struct{ fields, want string }{
		{`"env":{"":"` + secret + `"}`, `env: "" is not the name of a variable`},
		{`"env":{"1A":"` + secret + `"}`, `env: "1A" is not the name of a variable`},
		{`"env":{"A B":"` + secret + `"}`, `env: "A B" is not the name of a variable`},
		{`"env":{"A=B":"` + secret + `"}`, `env: "A=B" is not the name of a variable`},
		{`"env":{"É":"` + secret + `"}`, `env: "É" is not the name of a variable`},
		{`"env":{"A\u0000":"` + secret + `"}`, `env: "A\x00" is not the name of a variable`},
		{`"env":{"PWD":"` + secret + `"}`, `env: PWD cannot be set: it is the working directory of each command`},
		{`"env":{"A":"` + secret + `\u0000"}`, `env: the value of "A" holds a NUL character`},
		{`"env":{"A":null}`, `env: the value of "A" must be a string`},
		{`"env":{"A":1234567}`, `env: the value of "A" must be a string`},
		{`"env":{"A":["` + secret + `"]}`, `env: the value of "A" must be a string`},
		{`"env":["A=` + secret + `"]`, `Invalid request body`},
		{variables(129), `env has more than 128 variables`},
		{`"env":{"A":"` + strings.Repeat("x", 64<<10) + `"}`, `env has more than 65536 bytes of names and values`},

		{file(`"content":""`), `files[0].path is required`},
		{file(`"path":"a","content":null`), `files[0].content is required`},
		{file(`"path":"a"`), `files[0].content is required`},
		{file(`"path":"a","content":"eA"`), `files[0].content is not base64 with padding`},
		{file(`"path":"a","content":"?"`), `files[0].content is not base64 with padding`},
		{file(`"path":"a","content":"","mode":"rw"`), `files[0].mode must be permissions in octal, such as 0644`},
		{file(`"path":"a","content":"","mode":"4755"`), `files[0].mode must be permissions in octal, such as 0644`},
		{file(`"path":"a","content":"","mode":"0o644"`), `files[0].mode must be permissions in octal, such as 0644`},
		{file(`"path":"../a","content":""`), `files[0].path leaves the workspace`},
		{file(`"path":"a/../../b","content":""`), `files[0].path leaves the workspace`},
		{file(`"path":"..","content":""`), `files[0].path leaves the workspace`},
		{file(`"path":"/","content":""`), `files[0].path is that of a folder`},
		{file(`"path":".","content":""`), `files[0].path is that of a folder`},
		{file(`"path":"a/","content":""`), `files[0].path is that of a folder`},
		{file(`"path":"a/..","content":""`), `files[0].path is that of a folder`},
		{file(`"path":"a\u0000","content":""`), `files[0].path holds a NUL character`},
		{file(`"path":"` + strings.Repeat("x", 4097) + `","content":""`), `files[0].path is longer than 4096 bytes`},
		{`"files":[{"path":"b","content":""},{"path":"./b","content":""}]`, `files[1].path is that of files[0]`},
		{`"files":{}`, `Invalid request body`},
		{files(65, 0), `files are more than 64`},
		{files(2, 1<<19+1), `files have more than 1048576 bytes of content`},
	} {
		got := n.do(t.Context(), "alice", "POST", createPath, givenBody(test.fields))
		var e api.Error
		got.decode(t, &e)
		if got.status != 400 || e.Code != api.CodeInvalidRequest || e.Text != test.want {
			t.Errorf("%.60s: %d %s, want 400 %q", test.fields, got.status, got.body, test.want)
		}
		if strings.Contains(got.body, secret) || strings.Contains(got.body, "1234567") {
			t.Errorf("%.60s: the answer repeats a value: %s", test.fields, got.body)
		}
	}
	if recs := w.records(); len(recs) > 0 || len(w.host.IDs()) > 0 {
		t.Errorf("refused requests left %d records, %d sandboxes", len(recs), len(w.host.IDs()))
	}
	for _, good := range []string{
		`"env":null,"files":null`, `"env":{},"files":[]`, variables(128), files(64, 1<<14), files(1, 1<<20),
		`"env":{"_a9":"` + strings.Repeat("x", 64<<10-3) + `"}`, `"env":{"PATH":"","HOME":"/x","LD_PRELOAD":"é\n=\""}`,
		file(`"path":"/workspace/a/../b","content":"","mode":"000","unknown":1`),
	} {
		if got := n.do(t.Context(), "alice", "POST", createPath, givenBody(good)); got.status != 200 {
			t.Errorf("%.60s: %d %s", good, got.status, got.body)
		}
	}
}

// TestGivenReachesAgent: in both kinds of sessions it is in the body that is
// signed together with the key, and in nothing that is kept or shown.
func TestGivenReachesAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "sessions.db")
	_ = w.store.Close()
	w.store = sqlite.New(file)
	if err := w.store.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	var log logtest.Buffer
	w.config = func(c *manager.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }
	n := w.start()
	for _, key := range []string{"", `"publicKey":"` + clientKey(t) + `",`} {
		got := n.do(t.Context(), "alice", "POST", createPath, givenBody(key+`"env":{"TOKEN":"`+secret+`","A":"mine"},"files":[
			{"path":"/workspace/run.sh","content":"`+base64.StdEncoding.EncodeToString([]byte(secret))+`","mode":"0755"},{"path":"empty","content":""}]`),
			"Idempotency-Key", "k"+key[:min(len(key), 1)])
		var out api.CreateResponse
		got.decode(t, &out)
		if got.status != 200 || out.Variables != 2 || out.Files != 2 {
			t.Fatalf("create = %d %s", got.status, got.body)
		}
		var init struct {
			Env, SessionEnv map[string]string
			Files           []struct {
				Path    string
				Content []byte
				Mode    os.FileMode
			}
		}
		body := w.agents.bodies[out.SandboxID]
		if err := json.Unmarshal([]byte(body), &init); err != nil || init.Env["A"] != "b" || init.SessionEnv["A"] != "mine" || init.SessionEnv["TOKEN"] != secret ||
			len(init.Files) != 2 || init.Files[0].Path != "/workspace/run.sh" || string(init.Files[0].Content) != secret || init.Files[0].Mode != 0o755 ||
			init.Files[1].Path != "empty" || init.Files[1].Mode != 0o644 || !strings.Contains(body, `"content":""`) {
			t.Errorf("init body = %s, %v", body, err)
		}
		if w.agents.claims[out.SandboxID]["body_sha256"] == nil {
			t.Error("the body is not signed")
		}
		spec, _ := w.host.Spec(out.SandboxID)
		shown := got.body + fmt.Sprint(spec) + fmt.Sprintf("%+v", w.record(out.SessionID)) +
			n.do(t.Context(), "alice", "GET", "/v1/sessions/"+out.SessionID, "").body + n.do(t.Context(), "root", "GET", "/v1/sessions?all=true", "").body
		wantNoSecret(t, "an answer, the spec or the record", shown)
		if !strings.Contains(n.do(t.Context(), "alice", "GET", "/v1/sessions/"+out.SessionID, "").body, `"running"`) {
			t.Error("the session does not run")
		}
	}
	n.stop()
	wantNoSecret(t, "the log", log.String())
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(file + suffix)
		if err != nil || len(raw) == 0 {
			t.Fatalf("read store: %d bytes, %v", len(raw), err)
		}
		wantNoSecret(t, "the store", string(raw))
	}
}

func wantNoSecret(t *testing.T, where, text string) {
	t.Helper()
	for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
		if strings.Contains(text, form) {
			t.Errorf("%s tells a secret", where)
		}
	}
}

// TestGivenIsPartOfTheRequest: an idempotency key is for one environment and
// one set of files; the order of files does not matter.
func TestGivenIsPartOfTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	create := func(fields string) answer {
		return n.do(t.Context(), "alice", "POST", createPath, givenBody(fields), "Idempotency-Key", "k")
	}
	const (
		env = `"env":{"A":"1","B":"2"}`
		a   = `{"path":"a","content":"YQ=="}`
		b   = `{"path":"b","content":"Yg=="}`
	)
	var first, again api.CreateResponse
	create(env+`,"files":[`+a+`,`+b+`]`).decode(t, &first)
	create(`"files":[`+b+`,`+a+`],"env":{"B":"2","A":"1"}`).decode(t, &again)
	if first.SessionID == "" || again.SessionID != first.SessionID || again.Variables != 2 || again.Files != 2 {
		t.Errorf("the same request gave %+v, then %+v", first, again)
	}
	for _, other := range []string{
		`"ttl":0`, env, `"files":[` + a + `,` + b + `]`, `"env":{"A":"1","B":"3"},"files":[` + a + `,` + b + `]`,
		`"env":{"A":"1"},"files":[` + a + `,` + b + `]`, env + `,"files":[` + a + `]`,
		env + `,"files":[` + a + `,{"path":"b","content":"Yw=="}]`, env + `,"files":[` + a + `,{"path":"b","content":"Yg==","mode":"0600"}]`,
	} {
		wantCode(t, create(other), 409, api.CodeIdempotencyConflict)
	}
	n.stop()
	n = w.start()
	create(env+`,"files":[`+a+`,`+b+`]`).decode(t, &again)
	if again.SessionID != first.SessionID {
		t.Error("after a restart the key gave another session")
	}
}

// TestGivenFails: a session without what it was to be given is none.
func TestGivenFails(t *testing.T) {
	t.Parallel()
	const two = `"env":{"A":"1"},"files":[{"path":"a","content":""},{"path":"b","content":""}]`
	for name, test := range map[string]struct {
		status     int // of the agent
		answer     string
		want       int
		code       api.Code
		text       string
		checkpoint bool
	}{
		"a folder is there": {status: 500, answer: `{"error":"x","reason":"PATH_IS_DIRECTORY","file":1}`,
			want: 422, code: api.CodeFileNotWritten, text: "files[1].path is that of a folder"},
		"a link leads out": {status: 400, answer: `{"error":"x","reason":"PATH_ESCAPES_WORKSPACE","file":0}`,
			want: 422, code: api.CodeFileNotWritten, text: "files[0].path leads out of the workspace"},
		"no room": {status: 507, answer: `{"error":"x","reason":"DISK_FULL","file":0}`,
			want: 422, code: api.CodeFileNotWritten, text: "files[0].path has no room: the disk of the sandbox is full"},
		"an odd reason": {status: 500, answer: `{"error":"\u001b[2J","reason":"\u001b[2J","file":0}`,
			want: 422, code: api.CodeFileNotWritten, text: "files[0].path could not be written"},
		"a file that was not sent": {status: 500, answer: `{"error":"x","reason":"DISK_FULL","file":2}`,
			want: 500, code: api.CodeSandboxInitFailed, text: "internal server error"},
		"a file below zero": {status: 500, answer: `{"error":"x","reason":"DISK_FULL","file":-1}`,
			want: 500, code: api.CodeSandboxInitFailed, text: "internal server error"},
		"an agent that took less": {status: 200, answer: `{"message":"ok","variables":1,"files":1}`,
			want: 500, code: api.CodeSandboxInitFailed, text: "internal server error"},
		"an agent of before": {status: 200, answer: `{"message":"ok"}`, checkpoint: true,
			want: 410, code: api.CodeCheckpointUnusable, text: "the checkpoint is of a version of AgentCube that knew no env and files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n := w.start()
			body, kept := givenBody(two), 0
			if test.checkpoint {
				if got := n.checkpoint(n.create().SessionID, "c"); got.status != 200 {
					t.Fatalf("checkpoint = %d %s", got.status, got.body)
				}
				body, kept = `{"checkpoint":"c",`+two+`}`, 1
			}
			w.agents.mu.Lock()
			w.agents.status, w.agents.answer = test.status, test.answer
			w.agents.mu.Unlock()
			got := n.do(t.Context(), "alice", "POST", createPath, body)
			var e api.Error
			got.decode(t, &e)
			if got.status != test.want || e.Code != test.code || e.Text != test.text {
				t.Errorf("create = %d %s", got.status, got.body)
			}
			if ids := w.host.IDs(); len(ids) != kept || len(w.live()) != kept {
				t.Errorf("left: sandboxes %q, sessions %+v", ids, w.live())
			}
		})
	}
}

// TestGivenWithoutAgent: nothing in such a sandbox could take it.
func TestGivenWithoutAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].AuthMode = template.AuthNone
	n := w.start()
	for _, fields := range []string{`"env":{"A":"1"}`, `"files":[{"path":"a","content":""}]`} {
		wantCode(t, n.do(t.Context(), "alice", "POST", createPath, givenBody(fields)), 400, api.CodeInvalidRequest)
	}
	if got := n.checkpoint(n.create().SessionID, "c"); got.status != 200 {
		t.Fatalf("checkpoint = %d %s", got.status, got.body)
	}
	wantCode(t, n.do(t.Context(), "alice", "POST", createPath, `{"checkpoint":"c","env":{"A":"1"}}`), 400, api.CodeInvalidRequest)
}

// TestGivenStays: a pause keeps what a session was given, its forks and those
// begun from its checkpoint have it too, and what these are given comes over it.
func TestGivenStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host = fake.NewHost(nil)
	w.templates[0].WarmPoolSize = 1
	n := w.start()
	var parent api.CreateResponse
	n.do(t.Context(), "alice", "POST", createPath, givenBody(`"env":{"A":"session","B":"session"},"files":[{"path":"f","content":"YQ=="}]`)).decode(t, &parent)
	if got := n.driver.Claims("default/simple-codeinterpreter"); got != 1 {
		t.Errorf("%d sessions came from the pool, want 1", got)
	}
	want := func(who api.CreateResponse, a, b, c, file string) {
		t.Helper()
		got := [4]string{n.printenv(who, "A"), n.printenv(who, "B"), n.printenv(who, "C"), n.ask(who, "GET", "/api/files/f", "")}
		if got != [4]string{a, b, c, file} {
			t.Errorf("A, B, C and the file are %q, want %q %q %q %q", got, a, b, c, file)
		}
	}
	want(parent, "session", "session", "", "a")
	n.must(parent.SessionID, "pause")
	n.must(parent.SessionID, "resume")
	want(parent, "session", "session", "", "a")
	fork := n.fork(parent.SessionID, "")[0]
	want(fork, "session", "session", "", "a")
	want(n.fork(fork.SessionID, "")[0], "session", "session", "", "a")
	if got := n.checkpoint(fork.SessionID, "c"); got.status != 200 {
		t.Fatalf("checkpoint = %d %s", got.status, got.body)
	}
	var plain, changed api.CreateResponse
	n.do(t.Context(), "alice", "POST", createPath, `{"checkpoint":"c"}`).decode(t, &plain)
	want(plain, "session", "session", "", "a")
	n.do(t.Context(), "alice", "POST", createPath,
		`{"checkpoint":"c","env":{"B":"again","C":"new"},"files":[{"path":"f","content":"Yg=="}]}`).decode(t, &changed)
	want(changed, "session", "again", "new", "b")
	want(n.fork(changed.SessionID, "")[0], "session", "again", "new", "b")
	want(fork, "session", "session", "", "a")
}

// printenv is the value of a variable in a managed session.
func (n *node) printenv(s api.CreateResponse, name string) string {
	n.t.Helper()
	var out struct{ Stdout string }
	answer := n.ask(s, "POST", "/api/execute", `{"command":["printenv","`+name+`"]}`)
	if err := json.Unmarshal([]byte(answer), &out); err != nil {
		n.t.Fatalf("printenv: %s", answer)
	}
	return strings.TrimSuffix(out.Stdout, "\n")
}

// ask sends a request to the agent of a managed session.
func (n *node) ask(s api.CreateResponse, method, path, body string) string {
	n.t.Helper()
	token, err := auth.SignRouter(keys().router, s.SessionID, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, "http://sandbox"+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return n.driver.Dial(ctx, s.SandboxID, sandbox.AgentPort)
	}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, text, err)
	}
	return string(text)
}
