package e2e

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// portServer answers with what it was sent, and over the connection with who asks
// for the protocol "echo".
const portServer = `
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, self.path.encode() + b" " + body)
    def do_GET(self):
        if self.headers.get("Upgrade") != "echo":
            return self.answer(200, self.path.encode())
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "echo")
        self.end_headers()
        while line := self.rfile.readline():
            self.wfile.write(line.upper())
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Handler).serve_forever()
`

// TestPort reaches a server in a session, encrypted, in plain text and in a managed
// session, also with another protocol over the connection, as web sockets are.
func TestPort(t *testing.T) {
	t.Parallel()
	c := at(t).client(t)
	bound := create(t, c, client.CreateOptions{})
	managed := create(t, c, client.CreateOptions{Managed: true})
	for _, s := range []*client.Session{bound, managed} {
		if err := s.WriteFile(t.Context(), "server.py", []byte(portServer)); err != nil {
			t.Fatal(err)
		}
		run(t, s, "sh", "-c", "setsid python3 server.py >/dev/null 2>&1 &")
	}
	for name, s := range map[string]*client.Session{"encrypted": bound, "in plain text": bound.InPlainText(), "managed": managed} {
		t.Run(name, func(t *testing.T) { usePort(t, s) })
	}
}

func usePort(t *testing.T, s *client.Session) {
	t.Helper()
	hc := &http.Client{Transport: s.Port(3000)}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		resp, err := hc.Get("http://session/a/b?c=d")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusOK && string(text) == "/a/b?c=d" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("GET: %d %s", resp.StatusCode, text)
		}
	}
	resp, err := hc.Post("http://session/up", "text/plain", strings.NewReader("some text"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusCreated || string(text) != "/up some text" {
		t.Errorf("POST: %d %s, %v", resp.StatusCode, text, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://session/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
	if resp, err = hc.Transport.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %d", resp.StatusCode)
	}
	lines := bufio.NewReader(stream)
	for _, word := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(stream, word); err != nil {
			t.Fatal(err)
		}
		if got, err := lines.ReadString('\n'); err != nil || got != strings.ToUpper(word) {
			t.Errorf("%q, %v", got, err)
		}
	}
}
