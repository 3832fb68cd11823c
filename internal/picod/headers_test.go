package picod

import (
	"bufio"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
)

// TestFileNamesInHeaders: whatever a file is called, its name is a value in the
// header of its download, and nothing else.
func TestFileNamesInHeaders(t *testing.T) {
	b := start(t, nil)
	addr := b.listen()
	for _, name := range []string{
		"a\r\nSet-Cookie: evil=1.txt", "a\nSet-Cookie: evil=1", "a\rb", "a\r\n\r\n<script>", "\r\n", "tab\there", "\x01\x7f",
		`quote".txt`, `"; filename="evil`, `back\slash`, `end\`, "percent%0d%0aSet-Cookie: evil=1", "semi;colon=1", "a, b", "'single'", "UTF-8''x",
		"größe.csv", "日本語", "\u202egnp.exe", "\u2028line", "\xff\xfe.bin", "\xc0\x8a", "😀", " space ", "...", "-rf", strings.Repeat("x", 255), strings.Repeat("é", 127),
	} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		said := guardtest.Talk(t, addr, "GET /api/files/"+url.PathEscape(name)+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "+
			b.bearer(nil)["Authorization"]+"\r\n\r\n")
		if n := len(guardtest.Statuses(t, said)); n != 1 {
			t.Errorf("%q: %d answers", name, n)
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(said)), nil)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(body) != "content" || len(resp.Header["Set-Cookie"]) > 0 {
			t.Errorf("%q: %d %q %v", name, resp.StatusCode, body, resp.Header)
		}
		header := resp.Header["Content-Disposition"]
		if len(header) != 1 {
			t.Errorf("%q: %q", name, header)
			continue
		}
		if strings.ContainsFunc(header[0], func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: not everybody can read %q", name, header[0])
		}
		kind, params, err := mime.ParseMediaType(header[0])
		if want := strings.ToValidUTF8(name, "\uFFFD"); err != nil || kind != "attachment" || params["filename"] != want || len(params) != 1 {
			t.Errorf("%q is called %q (%v) by %s", name, params, err, header[0])
		}
	}
	if got := b.get("/api/files?path=."); got.StatusCode != 200 || len(got.json(t)["files"].([]any)) < 20 {
		t.Errorf("list: %d %.200q", got.StatusCode, got.body)
	}
}

// TestSecurityHeaders: no answer is kept by who carries it, or rendered by a browser.
func TestSecurityHeaders(t *testing.T) {
	b := start(t, nil)
	if err := os.WriteFile(filepath.Join(b.dir, "a.html"), []byte("<script>"), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func(method, path string) reply { return b.send(method, path, nil, nil) }
	for name, got := range map[string]reply{
		"health": send("GET", "/health"), "not found": send("GET", "/"), "unauthorized": send("GET", "/api/files"), "redirect": send("POST", "/api/files/"),
		"execute": b.post("/api/execute", map[string]any{"command": []string{"true"}}), "upload": b.post("/api/files", map[string]any{"path": "b", "content": ""}),
		"list": b.get("/api/files?path=."), "download": b.get("/api/files/a.html"), "no such file": b.get("/api/files/none"),
	} {
		for header, want := range map[string]string{
			"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
			"Server": "", "X-Powered-By": "",
		} {
			if values := got.Header[header]; strings.Join(values, "|") != want {
				t.Errorf("%s: %d with %s %q, want %q", name, got.StatusCode, header, values, want)
			}
		}
	}
}
