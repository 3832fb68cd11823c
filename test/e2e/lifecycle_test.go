package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// TestSessionsEnd: every way in which a session ends by itself or at its
// owner's wish has its fate, which is told from then on.
func TestSessionsEnd(t *testing.T) {
	const hour = time.Hour
	for _, tt := range []struct {
		name string
		opts client.CreateOptions
		// use is what happens with the session; nothing when nil.
		use  func(t *testing.T, s *client.Session)
		fate api.Fate
		// least is how long the session lives in any case.
		least time.Duration
	}{
		{name: "ttl", opts: client.CreateOptions{TTL: 2 * time.Second}, fate: api.FateExpired, least: 2 * time.Second},
		{name: "longest life, though the ttl is longer and it is busy", use: keepBusy,
			opts: client.CreateOptions{Template: "short-life", TTL: hour}, fate: api.FateExpired, least: 3 * time.Second},
		{name: "idle", opts: client.CreateOptions{Template: "short-idle"}, fate: api.FateIdle, least: 6 * time.Second},
		{name: "idle after a request that took longer than the time-out", opts: client.CreateOptions{Template: "short-idle"},
			use: func(t *testing.T, s *client.Session) {
				if got := output(t, s, "sleep 9; echo over"); got != "over\n" {
					t.Errorf("a request in flight got %q", got)
				}
			}, fate: api.FateIdle, least: 15 * time.Second},
		{name: "deleted", use: func(t *testing.T, s *client.Session) { discard(t, s) }, fate: api.FateDeleted},
		{name: "managed and deleted", opts: client.CreateOptions{Managed: true},
			use: func(t *testing.T, s *client.Session) { discard(t, s) }, fate: api.FateDeleted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := at(t).client(t)
			s := create(t, c, tt.opts)
			if tt.use != nil {
				tt.use(t, s)
			}
			rec := awaitEnd(t, c, s.ID)
			if rec.Fate != tt.fate || rec.Reason == "" || rec.EndedAt == nil {
				t.Fatalf("session ended as %+v, want fate %s", rec, tt.fate)
			}
			if lived := rec.EndedAt.Sub(rec.CreatedAt); lived < tt.least {
				t.Errorf("session lived %s, less than %s", lived, tt.least)
			}
			wantGone(t, s, tt.fate)
			if _, err := s.ListFiles(t.Context(), ""); !errors.Is(err, client.ErrSessionEnded) {
				t.Errorf("listing files of an ended session: %v", err)
			}
			if err := c.DeleteSession(t.Context(), s.ID); !errors.Is(err, client.ErrSessionEnded) {
				t.Errorf("deleting an ended session: %v", err)
			}
		})
	}
}

// keepBusy uses a session until it is over.
func keepBusy(t *testing.T, s *client.Session) {
	for {
		if _, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}}); err != nil {
			return
		}
	}
}

// TestWhoMayCall: without the token, from a web page, or with another key than
// the session's, nothing is had.
func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	at := at(t)
	s := create(t, at.client(t), client.CreateOptions{})
	own := "Bearer " + at.Token
	data := "/v1/namespaces/default/code-interpreters/simple-codeinterpreter/invocations/api/files?path=."
	other, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := at.client(t).Attach(t.Context(), s.ID, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.ListFiles(t.Context(), ""); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("another key: %v", err)
	}
	for _, tt := range []struct {
		name, method, path string
		header             map[string]string
		status             int
	}{
		{"no token: create", "POST", "/v1/code-interpreter", nil, 401},
		{"no token: list", "GET", "/v1/sessions", nil, 401},
		{"no token: get", "GET", "/v1/sessions/" + s.ID, nil, 401},
		{"no token: delete", "DELETE", "/v1/sessions/" + s.ID, nil, 401},
		{"no token: old delete", "DELETE", "/v1/code-interpreter/sessions/" + s.ID, nil, 401},
		{"no token: data", "GET", data, map[string]string{api.HeaderSessionID: s.ID}, 401},
		{"wrong token", "GET", "/v1/sessions", map[string]string{"Authorization": "Bearer ac_wrong"}, 401},
		{"the token does not open a key-bound session", "GET", data, map[string]string{"Authorization": own, api.HeaderSessionID: s.ID}, 401},
		{"a host that is not this machine", "GET", "/v1/sessions", map[string]string{"Authorization": own, "Host": "evil.example"}, 403},
		{"a page of another origin", "GET", "/v1/sessions", map[string]string{"Authorization": own, "Origin": "https://evil.example"}, 403},
		{"a page, data plane", "GET", data, map[string]string{api.HeaderSessionID: s.ID, "Origin": "https://evil.example"}, 403},
		{"an unknown session", "GET", data, map[string]string{"Authorization": own, api.HeaderSessionID: "00000000-0000-4000-8000-000000000000"}, 404},
		{"the owner", "GET", "/v1/sessions/" + s.ID, map[string]string{"Authorization": own}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := request(t, tt.method, at.url(tt.path), tt.header)
			if status != tt.status {
				t.Fatalf("%s %s = %d %s, want %d", tt.method, tt.path, status, body, tt.status)
			}
			var text struct{ Error string }
			if err := json.Unmarshal(body, &text); err != nil || status >= 400 && text.Error == "" {
				t.Errorf("the answer says nothing: %s (%v)", body, err)
			}
		})
	}
}

// request makes a plain HTTP request and returns status and body.
func request(t *testing.T, method, url string, header map[string]string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if host := header["Host"]; host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// TestSecondStart: who comes second is told who is there, and disturbs nobody.
func TestSecondStart(t *testing.T) {
	t.Parallel()
	srv := env.shared
	for name, args := range map[string][]string{
		"same port":   {"--listen", srv.addr, "--data-dir", t.TempDir()},
		"same folder": {"--listen", "127.0.0.1:0", "--data-dir", srv.data},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), env.bin, append([]string{"up"}, args...)...)
			cmd.Env = srv.environ()
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("second start: %v", err)
			}
			if pid := strconv.Itoa(srv.cmd.Process.Pid); !strings.Contains(string(out), pid) {
				t.Errorf("the message does not name process %s:\n%s", pid, out)
			}
		})
	}
	if err := srv.client(t).Health(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestStop: SIGTERM and Ctrl-C let requests under way finish and leave nothing
// on the machine, which newServer checks at the end of every test.
func TestStop(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := srv.client(t)
			idle, err := c.CreateSession(t.Context(), client.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			output(t, idle, "sleep 1000 & disown")
			s, err := c.CreateSession(t.Context(), client.CreateOptions{Managed: true})
			if err != nil {
				t.Fatal(err)
			}
			answer := make(chan error, 1)
			go func() {
				res, err := s.Execute(context.WithoutCancel(t.Context()), client.ExecRequest{
					Command: []string{"bash", "-c", "touch started; sleep 3; echo over"}})
				if err == nil && string(res.Stdout) != "over\n" {
					err = errors.New("output " + string(res.Stdout))
				}
				answer <- err
			}()
			awaitFile(t, s, "started")
			if err := srv.signal(sig); err != nil {
				t.Fatal(err)
			}
			if srv.err != nil {
				t.Errorf("the server ended with %v", srv.err)
			}
			if err := <-answer; err != nil {
				t.Errorf("a request under way: %v", err)
			}
			if left := srv.census(); left.processes+left.cgroups+left.mounts != 0 {
				t.Errorf("left behind: %v", left)
			}
			srv.empty(t)
			srv.restart(t)
			rec, err := srv.client(t).GetSession(t.Context(), s.ID)
			if err != nil || rec.Fate != api.FateHostLost {
				t.Errorf("after a stop the session is %+v, %v", rec, err)
			}
		})
	}
}

// awaitFile waits until a file is in the workspace.
func awaitFile(t *testing.T, s *client.Session, name string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		files, err := s.ListFiles(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Name == name {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not appear", name)
		}
	}
}
