package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// ownServer is a program that serves in PicoD's place. It starts others until
// that is refused, and tries to have its limit lifted.
const ownServer = `
import http.server, os, resource, subprocess

def start():
    children = []
    try:
        while len(children) < 2000:
            children.append(subprocess.Popen(["sleep", "1000"]))
        refused = "nothing was refused"
    except OSError as e:
        refused = os.strerror(e.errno)
    for child in children:
        child.kill()
    for child in children:
        child.wait()
    return f"{len(children)} {refused}"

def lift():
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (100000, 100000))
        return "lifted"
    except (OSError, ValueError):
        return "refused"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = {"/start": start, "/lift": lift}[self.path]().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

http.server.HTTPServer(("", 9000), Handler).serve_forever()
`

// TestOwnServer: a program in PicoD's place is reached through the Router, and
// held to the processes of its template. Before, nothing but the host's backstop
// held it, many times as much.
func TestOwnServer(t *testing.T) {
	t.Parallel()
	const limit, relay = 64, 16
	program, err := json.Marshal(ownServer)
	if err != nil {
		t.Fatal(err)
	}
	srv := stoppedServer(t)
	srv.template(t, "own", "authMode: none\n  ports: [{port: 9000, pathPrefix: /}]", small+"\n    command: [python3, -c, "+string(program)+"]")
	srv.restart(t)
	c := srv.client(t)
	s := create(t, c, client.CreateOptions{Template: "own", Managed: true})
	for range 2 { // it can be done again when the first are gone
		answer := invoke(t, srv.url, srv.token, s, "start")
		var started int
		var refused string
		if _, err := fmt.Sscan(answer, &started, &refused); err != nil || refused != "Resource" {
			t.Fatalf("starting others: %q, want a number and: Resource temporarily unavailable", answer)
		}
		// It is a process itself, and the relay has some threads of the room for it.
		if started < limit-relay || started > limit+relay-1 {
			t.Errorf("%d processes were started, with a limit of %d", started, limit)
		}
	}
	if answer := invoke(t, srv.url, srv.token, s, "lift"); answer != "refused" {
		t.Errorf("lifting the limit: %q", answer)
	}
}

// TestOwnServerAnswers: a template whose command serves by itself, without PicoD, is
// reached by its creator alone.
func TestOwnServerAnswers(t *testing.T) {
	t.Parallel()
	at := at(t)
	s := create(t, at.client(t), client.CreateOptions{Template: "own-server", Managed: true})
	if got := invoke(t, at.Router, at.Token, s, "etc/os-release"); !strings.Contains(got, "ID=") {
		t.Errorf("the server answers %q", got)
	}
	path := at.Router + "/v1/namespaces/default/code-interpreters/own-server/invocations/etc/os-release"
	for token, want := range map[string]int{at.Stranger: http.StatusNotFound, "": http.StatusUnauthorized} {
		header := map[string]string{api.HeaderSessionID: s.ID}
		if token != "" {
			header["Authorization"] = "Bearer " + token
		}
		if status, body := request(t, http.MethodGet, path, header); status != want {
			t.Errorf("somebody else: %d %s, want %d", status, body, want)
		}
	}
}

// invoke sends a request to a session's program, again while nothing listens yet.
func invoke(t *testing.T, router, token string, session *client.Session, path string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			router+"/v1/namespaces/default/code-interpreters/"+session.Info.Name+"/invocations/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set(api.HeaderSessionID, session.ID)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case err == nil && resp.StatusCode == http.StatusOK:
			return string(body)
		case resp.StatusCode != http.StatusBadGateway || time.Now().After(deadline):
			t.Fatalf("%s: %d %s, %v", path, resp.StatusCode, body, err)
		}
	}
}
