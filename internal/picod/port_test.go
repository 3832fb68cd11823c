package picod

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/audit"
)

// serveAtPort is a server as user code has one; it repeats what it gets, and talks
// "echo" over the connection with who wants that.
func serveAtPort(t *testing.T) (port string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "echo" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(conn, rw)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Cache-Control", "public")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s auth=%q", r.Method, r.RequestURI, body, r.Header.Get("Authorization"))
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

func TestPort(t *testing.T) {
	port := serveAtPort(t)
	addr, certificate, b := serveSecurely(t, nil)
	c := secureClient(t, addr, certificate, b.key, false)
	for _, test := range []struct{ method, path, body, want string }{
		{"GET", "/a%2Fb/c?d=e", "", `GET /a%2Fb/c?d=e  auth=""`},
		{"PUT", "/", "content", `PUT / content auth=""`},
		{"GET", "", "", `GET /  auth=""`},
	} {
		target := "/api/ports/" + port + test.path
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		status, text := portRequest(t, c, b, test.method, target, api.RequestTarget(u.Path, u.RawQuery), test.body)
		if status != http.StatusTeapot || text != test.want {
			t.Errorf("%s %s: %d %q, want %q", test.method, target, status, text, test.want)
		}
	}
	for target, want := range map[string]string{
		"/api/ports/0/": "INVALID_PORT", "/api/ports/x/": "INVALID_PORT", "/api/ports/070/": "INVALID_PORT", "/api/ports/70000/": "INVALID_PORT",
		fmt.Sprintf("/api/ports/%d/health", b.srv.cfg.Port): "INVALID_PORT", "/api/ports/1/": "PORT_UNREACHABLE",
	} {
		if _, text := portRequest(t, c, b, "GET", target, target, ""); !strings.Contains(text, want) {
			t.Errorf("GET %s: %s, want %s", target, text, want)
		}
	}
	// What was not signed is not sent on.
	for name, change := range map[string]func(*http.Request){
		"another body": func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("other")), 5 },
		"no body":      func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 },
		"another port": func(r *http.Request) { r.URL.Path = "/api/ports/1/" },
	} {
		req := signedFor(t, b, "POST", "/api/ports/"+port+"/", "/api/ports/"+port+"/", "signed")
		change(req)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", name, resp.StatusCode)
		}
	}
}

func signedFor(t *testing.T, b *box, method, target, claim, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+api.SecureName("s1")+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+sign(t, jwt.SigningMethodRS256, b.key, jwt.MapClaims{
		"sid": "s1", "jti": time.Now().String(), "htm": method, "htu": claim, "body_sha256": hashOf([]byte(body)),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}))
	return req
}

func portRequest(t *testing.T, c *http.Client, b *box, method, target, claim, body string) (int, string) {
	t.Helper()
	resp, err := c.Do(signedFor(t, b, method, target, claim, body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestPortUpgrade: both sides talk what they like over the connection, and the record
// has that they did.
func TestPortUpgrade(t *testing.T) {
	port := serveAtPort(t)
	addr, certificate, b := serveSecurely(t, nil)
	c := secureClient(t, addr, certificate, b.key, false)
	target := "/api/ports/" + port + "/"
	req := signedFor(t, b, "GET", target, target, "")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := c.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("status %d", resp.StatusCode)
	}
	lines := bufio.NewReader(stream)
	for range 3 {
		if _, err := io.WriteString(stream, "to and fro\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || line != "to and fro\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	stream.Close()
	for deadline := time.Now().Add(guard); ; time.Sleep(10 * time.Millisecond) {
		_, text, _ := sent(t, c, b, "GET", "/api/audit", "")
		rec, err := audit.ParseRecord([]byte(text), certificate, "s1")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range rec.Entries {
			if e.Path == target && e.Status == http.StatusSwitchingProtocols {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the record is %s", text)
		}
	}
}
