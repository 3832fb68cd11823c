package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

// TestOldAgentClient sends what the AgentRuntimeClient of the SDK 0.1.0 sends, byte
// for byte by the wire contract's section 1.3, over one connection as it does
// while it is let, and looks at what that client looks at.
func TestOldAgentClient(t *testing.T) {
	t.Parallel()
	at := at(t)
	var conn net.Conn
	var answers *bufio.Reader
	connect := func() {
		t.Helper()
		var err error
		if conn, err = net.Dial("tcp", at.router(t)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		answers = bufio.NewReader(conn)
	}
	connect()
	send := func(method, path, headers, body string) (status int, header http.Header, text string) {
		t.Helper()
		request := method + " /v1/namespaces/default/agent-runtimes/agent/invocations/" + path + " HTTP/1.1\r\n" +
			"Host: " + at.router(t) + "\r\n" +
			"User-Agent: python-requests/2.32.5\r\n" +
			"Accept-Encoding: gzip, deflate\r\n" +
			"Accept: */*\r\n" +
			"Connection: keep-alive\r\n" +
			"Authorization: Bearer " + at.Token + "\r\n" + headers
		if body != "" {
			request += fmt.Sprintf("Content-Length: %d\r\nContent-Type: application/json\r\n", len(body))
		}
		if _, err := io.WriteString(conn, request+"\r\n"+body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Close {
			connect()
		}
		return resp.StatusCode, resp.Header, string(raw)
	}
	// The session is in the header, whatever the status.
	status, header, _ := send("GET", "", "", "")
	id := header.Get("x-agentcube-session-id")
	if status != 404 || id == "" {
		t.Fatalf("the first request = %d, session %q", status, id)
	}
	session := "x-agentcube-session-id: " + id + "\r\n"
	for n := range 2 {
		status, header, text := send("POST", "count", session, `{"prompt": "hello"}`)
		if want := fmt.Sprintf(`{"count": %d}`, n+1); status != 200 || text != want || header.Get("X-Agentcube-Session-Id") != id {
			t.Errorf("invoke = %d %s, want %s", status, text, want)
		}
	}
	// Agents are never deleted by that client: what has ended is found gone.
	if err := at.client(t).DeleteSession(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if status, _, text := send("POST", "count", session, `{}`); status != 410 || !strings.Contains(text, string(api.CodeSessionEnded)) {
		t.Errorf("after its end = %d %s", status, text)
	}
	status, header, text := send("POST", "count", "x-agentcube-session-id: no-such\r\n", "{}")
	if status != 404 || !strings.Contains(text, `"error":"sessions.agentcube.volcano.sh \"no-such\" not found"`) || header.Get("x-agentcube-session-id") != "" {
		t.Errorf("a session that never was = %d %s", status, text)
	}
}
