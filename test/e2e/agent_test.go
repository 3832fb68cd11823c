package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// agentTemplate adds an agent that runs a Python program, before the server starts.
func (s *server) agentTemplate(t *testing.T, name, program, more string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.path("t"), name+".yaml"), []byte(agentText(name, localImage, program, more)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// agent is a caller of an agent, with or without a session.
type agent struct {
	t       *testing.T
	router  string // its URL
	name    string
	token   string
	session string
}

// send sends a request, and returns the answer with its body unread.
func (a *agent) send(method, path string, body io.Reader) *http.Response {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method,
		a.router+"/v1/namespaces/default/agent-runtimes/"+a.name+"/invocations/"+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if a.session != "" {
		req.Header.Set(api.HeaderSessionID, a.session)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// call sends a request and reads the answer.
func (a *agent) call(method, path, body string) (status int, answer map[string]any, header http.Header) {
	a.t.Helper()
	resp := a.send(method, path, strings.NewReader(body))
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = json.Unmarshal(raw, &answer)
	return resp.StatusCode, answer, resp.Header
}

// begin makes a session as a client that has none does.
func (a *agent) begin() *agent {
	a.t.Helper()
	status, answer, header := a.call("GET", "", "")
	if a.session = header.Get(api.HeaderSessionID); status != http.StatusNotFound || answer["error"] != "no such page" || a.session == "" {
		a.t.Fatalf("a request without session = %d %v, session %q", status, answer, a.session)
	}
	return a
}

func (a *agent) count(want float64) {
	a.t.Helper()
	status, answer, header := a.call("POST", "count", "{}")
	if status != 200 || answer["count"] != want || header.Get(api.HeaderSessionID) != a.session {
		a.t.Errorf("count = %d %v, session %q; want %v, session %q", status, answer, header.Get(api.HeaderSessionID), want, a.session)
	}
}

// TestAgent: an agent's own server is a session's, with all that a session has.
func TestAgent(t *testing.T) {
	t.Parallel()
	at := at(t)
	c := at.client(t)
	begin := func(t *testing.T, name string) *agent {
		a := (&agent{t: t, router: at.Router, name: name, token: at.Token}).begin()
		t.Cleanup(func() {
			if err := c.DeleteSession(context.WithoutCancel(t.Context()), a.session); err != nil && !errors.Is(err, client.ErrSessionEnded) {
				t.Error(err)
			}
		})
		return a
	}
	one := begin(t, "agent")

	t.Run("state", func(t *testing.T) {
		two := begin(t, "agent")
		one.count(1)
		one.count(2)
		two.count(1)
		one.count(3)
	})
	t.Run("as the manifest says", func(t *testing.T) {
		_, answer, _ := one.call("GET", "who?x=1", "")
		headers, _ := answer["headers"].(map[string]any)
		if answer["uid"] != 1000.0 || answer["cwd"] != "/srv" || answer["path"] != "/who?x=1" {
			t.Errorf("the agent says %v", answer)
		}
		if headers["authorization"] != nil {
			t.Errorf("the agent was sent %v", headers["authorization"])
		}
		for path, port := range map[string]float64{"admin": 9001, "admin/x": 9001, "administrator": 9000, "x/admin": 9000, "x/../admin/y": 9001} {
			if _, answer, _ := one.call("PUT", path, ""); answer["port"] != port {
				t.Errorf("%s went to port %v, want %v", path, answer["port"], port)
			}
		}
		if status, _, header := one.call("HEAD", "x", ""); status != 200 || header.Get(api.HeaderSessionID) != one.session {
			t.Errorf("HEAD = %d, session %q", status, header.Get(api.HeaderSessionID))
		}
	})
	t.Run("events", func(t *testing.T) { watchEvents(t, one) })
	t.Run("large bodies", func(t *testing.T) {
		body := bytes.Repeat([]byte("0123456789abcdef"), 3<<20)
		sum := sha256.Sum256(body)
		resp := one.send("POST", "digest", bytes.NewReader(body))
		var answer struct {
			Size   int
			SHA256 string
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Size != len(body) || answer.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%d bytes came as %+v, %v", len(body), answer, err)
		}
		n, err := io.Copy(io.Discard, one.send("GET", "blob", nil).Body)
		if err != nil || n != 32<<20 {
			t.Errorf("an answer of 32 MiB came as %d bytes, %v", n, err)
		}
	})
	t.Run("another owner", func(t *testing.T) {
		mallory := &agent{t: t, router: at.Router, name: "agent", token: at.Stranger, session: one.session}
		if status, answer, header := mallory.call("POST", "count", "{}"); status != 404 || answer["code"] != string(api.CodeSessionNotFound) || header.Get(api.HeaderSessionID) != "" {
			t.Errorf("a stranger got %d %v", status, answer)
		}
		one.count(4)
	})
	t.Run("sleep", func(t *testing.T) {
		s, err := c.Attach(t.Context(), one.session, nil)
		if err != nil {
			t.Fatal(err)
		}
		at.pause(t, s)
		one.count(5)
	})
	t.Run("idle", func(t *testing.T) {
		a := begin(t, "brief")
		if rec := awaitEnd(t, c, a.session); rec.Fate != api.FateIdle || rec.Kind != api.KindAgentRuntime {
			t.Errorf("record = %+v", rec)
		}
		if status, answer, _ := a.call("POST", "count", "{}"); status != 410 || answer["fate"] != "idle" {
			t.Errorf("after its end: %d %v", status, answer)
		}
	})
	t.Run("death", func(t *testing.T) {
		a := begin(t, "agent")
		if status, answer, header := a.call("POST", "die", ""); status < 400 || header.Get(api.HeaderSessionID) != a.session {
			t.Errorf("the request that it dies of = %d %v", status, answer)
		}
		awaitEnd(t, c, a.session)
		if status, answer, _ := a.call("GET", "", ""); status != 410 || answer["fate"] != "failed" {
			t.Errorf("after its end: %d %v", status, answer)
		}
	})
}

// watchEvents reads a stream whose next event is only sent when the one before has
// been read.
func watchEvents(t *testing.T, a *agent) {
	resp := a.send("GET", "events", nil)
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("Content-Type = %q", kind)
	}
	lines := bufio.NewScanner(resp.Body)
	for n := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", n) || !lines.Scan() || lines.Text() != "" {
			t.Fatalf("event %d came as %q, %v", n, lines.Text(), lines.Err())
		}
		if status, _, _ := a.call("POST", "go", ""); status != 200 {
			t.Fatalf("go = %d", status)
		}
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("after the last event: %q, %v", lines.Text(), lines.Err())
	}
}

// TestAgentThatFails: who asks for an agent that does not come to listen is told why,
// and nothing that it has printed. One that is slow is waited for.
func TestAgentThatFails(t *testing.T) {
	t.Parallel()
	srv := stoppedServer(t, "--sandbox-create-timeout", "30s")
	srv.agentTemplate(t, "slow", "import time; time.sleep(1)\n"+agentServer, "")
	srv.agentTemplate(t, "dying", "print('hunter2'); raise SystemExit('hunter2')", "")
	srv.agentTemplate(t, "deaf", "import time; print('hunter2', flush=True); time.sleep(1000)", "")
	srv.restart(t)
	slow := &agent{t: t, router: srv.url, name: "slow", token: srv.token}
	slow.begin().count(1)
	for name, want := range map[string]struct {
		status     int
		text, hint string
	}{
		"dying": {502, "the template's server ended before it listened on port 9001", "run its command in a session of the same image"},
		"deaf":  {504, "the template's server did not listen on port 9001 within 15s", "it has to listen on all addresses (0.0.0.0)"},
	} {
		a := &agent{t: t, router: srv.url, name: name, token: srv.token}
		status, answer, _ := a.call("GET", "", "")
		hint, _ := answer["hint"].(string)
		if status != want.status || answer["error"] != want.text || !strings.Contains(hint, want.hint) || answer["code"] != string(api.CodeServerNotListening) {
			t.Errorf("%s: %d %v", name, status, answer)
		}
		if strings.Contains(fmt.Sprint(answer), "hunter2") {
			t.Errorf("%s: the answer holds what the agent printed: %v", name, answer)
		}
	}
	for _, rec := range listAll(t, srv.client(t)) {
		if rec.SessionID != slow.session && (rec.State != api.StateEnded || rec.Fate != api.FateFailed) {
			t.Errorf("%s is %s, %s", rec.Name, rec.State, rec.Fate)
		}
	}
	if strings.Contains(srv.log(), "hunter2") {
		t.Error("the server logs what an agent prints")
	}
}
