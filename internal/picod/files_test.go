package picod

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime/multipart"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sys/unix"
)

// field is one part of a form; a file when it has a file name.
type field struct{ name, filename, value string }

// buildForm builds a multipart body.
func buildForm(t testing.TB, fields ...field) (contentType string, body []byte) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, f := range fields {
		create := w.CreateFormField
		if f.filename != "" {
			create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, f.filename) }
		}
		part, err := create(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, f.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), buf.Bytes()
}

func (b *box) postForm(claims jwt.MapClaims, fields ...field) reply {
	b.t.Helper()
	contentType, body := buildForm(b.t, fields...)
	headers := b.bearer(claims)
	headers["Content-Type"] = contentType
	return b.send("POST", "/api/files", headers, bytes.NewReader(body))
}

// tree lists the workspace, links as they are.
func (b *box) tree() []string {
	b.t.Helper()
	names := []string{}
	err := filepath.WalkDir(b.dir, func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(b.dir, path)
		names = append(names, rel)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	sort.Strings(names)
	return names[1:]
}

func TestUpload(t *testing.T) {
	old := unix.Umask(0o077) // a mode must not be narrowed by it
	defer unix.Umask(old)
	type upload func(b *box, path, content, mode string) reply
	ways := map[string]upload{
		"json": func(b *box, path, content, mode string) reply {
			body := map[string]any{"path": path, "content": base64.StdEncoding.EncodeToString([]byte(content))}
			if mode != "" {
				body["mode"] = mode
			}
			return b.post("/api/files", body)
		},
		"multipart": func(b *box, path, content, mode string) reply {
			return b.postForm(nil, field{"path", "", path}, field{"mode", "", mode}, field{"file", "f", content})
		},
		"multipart, file first": func(b *box, path, content, mode string) reply {
			return b.postForm(nil, field{"file", "f", content}, field{"mode", "", mode}, field{"path", "", path})
		},
	}
	for name, up := range ways {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil)
			for _, tt := range []struct{ path, content, mode, stored, shown string }{
				{"a.txt", "hello", "0644", "a.txt", "-rw-r--r--"},
				{"a.txt", "", "0600", "a.txt", "-rw-------"},
				{"a.txt", "again", "", "a.txt", "-rw-------"},
				{"plain", "x", "", "plain", "-rw-r--r--"},
				{"deep/er/x", "\x00\xff", "0755", "deep/er/x", "-rwxr-xr-x"},
				{"m1", "x", "644", "m1", "-rw-r--r--"},
				{"m2", "x", "755", "m2", "-rw-r--r--"},
				{"m3", "x", "4755", "m3", "-rw-r--r--"},
				{"m4", "x", "0o777", "m4", "-rw-r--r--"},
				{"m5", "x", "999", "m5", "-rw-r--r--"},
				{"m6", "x", "777", "m6", "-rwxrwxrwx"},
				{"/etc/passwd", "mine", "0644", "etc/passwd", "-rw-r--r--"},
				{b.dir + "/inside", "x", "0644", "inside", "-rw-r--r--"},
				{"b/../c", "x", "0644", "c", "-rw-r--r--"},
				{"odd \n\"'\\#?%é€", "x", "0644", "odd \n\"'\\#?%é€", "-rw-r--r--"},
			} {
				if tt.mode == "755" { // octal 755 is a usable mode
					tt.shown = "-rwxr-xr-x"
				}
				got := up(b, tt.path, tt.content, tt.mode)
				if got.StatusCode != 200 {
					t.Fatalf("%q: %d %s", tt.path, got.StatusCode, got.body)
				}
				m := got.json(t)
				if m["path"] != tt.stored || m["size"] != float64(len(tt.content)) || m["mode"] != tt.shown {
					t.Errorf("%q: %s", tt.path, got.body)
				}
				if _, err := time.Parse(time.RFC3339, m["modified"].(string)); err != nil {
					t.Error(err)
				}
				text, err := os.ReadFile(filepath.Join(b.dir, tt.stored))
				info, statErr := os.Stat(filepath.Join(b.dir, tt.stored))
				if err != nil || statErr != nil || string(text) != tt.content || info.Mode().String() != tt.shown {
					t.Errorf("%q: stored %q %v %v", tt.path, text, info.Mode(), err)
				}
			}
			for _, name := range b.tree() {
				if strings.Contains(name, "picod-upload") {
					t.Errorf("left behind: %s", name)
				}
			}
		})
	}
}

func TestUploadRefused(t *testing.T) {
	b := start(t, nil)
	if err := os.Mkdir(b.dir+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	file := field{"file", "f", "content"}
	path := func(p string) field { return field{"path", "", p} }
	for _, tt := range []struct {
		name   string
		got    func() reply
		status int
		text   string
		reason string
	}{
		{"no path", func() reply { return b.post("/api/files", map[string]any{"content": ""}) }, 400, "Invalid request body", "MISSING_PATH"},
		{"no content", func() reply { return b.post("/api/files", map[string]any{"path": "x"}) }, 400, "Invalid request body", "MISSING_CONTENT"},
		{"unpadded", func() reply { return b.post("/api/files", map[string]any{"path": "x", "content": "YQ"}) }, 400, "Failed to decode content", "INVALID_CONTENT"},
		{"directory", func() reply { return b.post("/api/files", map[string]any{"path": "dir", "content": ""}) }, 500, "Failed to write file", "PATH_IS_DIRECTORY"},
		{"workspace", func() reply { return b.post("/api/files", map[string]any{"path": ".", "content": ""}) }, 500, "Failed to write file", "PATH_IS_DIRECTORY"},
		{"above", func() reply { return b.post("/api/files", map[string]any{"path": "../x", "content": ""}) }, 400, "Invalid path: path escapes workspace jail", "PATH_ESCAPES_WORKSPACE"},
		{"NUL", func() reply { return b.post("/api/files", map[string]any{"path": "a\x00b", "content": ""}) }, 400, "Invalid path", "INVALID_PATH"},
		{"long name", func() reply {
			return b.post("/api/files", map[string]any{"path": strings.Repeat("x", 300), "content": ""})
		}, 400, "Invalid path", "INVALID_PATH"},
		{"long path", func() reply {
			return b.post("/api/files", map[string]any{"path": strings.Repeat("x/", 3000), "content": ""})
		}, 400, "Invalid path", "INVALID_PATH"},
		{"form without path", func() reply { return b.postForm(nil, file) }, 400, "Missing 'path' field", "MISSING_PATH"},
		{"form with empty path", func() reply { return b.postForm(nil, path(""), file) }, 400, "Missing 'path' field", "MISSING_PATH"},
		{"form without file", func() reply { return b.postForm(nil, path("x")) }, 400, "Failed to get file", "MISSING_FILE"},
		{"form above", func() reply { return b.postForm(nil, path("../x"), file) }, 400, "Invalid path: path escapes workspace jail", "PATH_ESCAPES_WORKSPACE"},
		{"form to a directory", func() reply { return b.postForm(nil, file, path("dir")) }, 500, "Failed to write file", "PATH_IS_DIRECTORY"},
		{"form to the workspace", func() reply { return b.postForm(nil, path("/"), file) }, 500, "Failed to write file", "PATH_IS_DIRECTORY"},
		{"other body signed", func() reply {
			return b.postForm(jwt.MapClaims{"body_sha256": hashOf([]byte("other"))}, path("x"), file)
		}, 401, "Invalid token", "INVALID_TOKEN"},
		{"long field", func() reply { return b.postForm(nil, path(strings.Repeat("x", 9000)), file) }, 400, "Failed to get file", "INVALID_REQUEST"},
		{"no boundary", func() reply {
			h := b.bearer(nil)
			h["Content-Type"] = "multipart/form-data"
			return b.send("POST", "/api/files", h, strings.NewReader("x"))
		}, 400, "Failed to get file", "INVALID_REQUEST"},
		{"cut off", func() reply {
			contentType, body := buildForm(t, path("x"), file)
			h := b.bearer(nil)
			h["Content-Type"] = contentType
			return b.send("POST", "/api/files", h, bytes.NewReader(body[:len(body)-20]))
		}, 400, "Failed to get file", "INVALID_REQUEST"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.got().expect(t, tt.status, tt.text, tt.reason)
			if left := b.tree(); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	contentType, body := buildForm(t, path("signed"), file)
	h := b.bearer(jwt.MapClaims{"body_sha256": hashOf(body)})
	h["Content-Type"] = contentType
	if got := b.send("POST", "/api/files", h, bytes.NewReader(body)); got.StatusCode != 200 {
		t.Errorf("a signed form is refused: %s", got.body)
	}
}

// TestLargeTransfer moves 64 MiB both ways.
func TestLargeTransfer(t *testing.T) {
	b := start(t, nil)
	const size = 64 << 20
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	got := b.postForm(nil, field{"path", "", "big"}, field{"mode", "", "0644"}, field{"file", "big", string(content)})
	if got.StatusCode != 200 || got.json(t)["size"] != float64(size) {
		t.Fatalf("upload: %d %s", got.StatusCode, got.body)
	}
	down := b.get("/api/files/big")
	if down.ContentLength != size || !bytes.Equal(down.body, content) {
		t.Errorf("download: %d bytes of %d", len(down.body), down.ContentLength)
	}
}

func TestDownload(t *testing.T) {
	b := start(t, nil)
	for name, text := range map[string]string{
		"a.csv": "x,y\n", "index.html": "<p>", "dir/b c#?%.txt": "odd", "workspace/own": "relative", "empty": "", "é\".bin": "u", "data": "0123456789",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(b.dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ url, text, contentType, disposition string }{
		{"a.csv", "x,y\n", "text/csv; charset=utf-8", `attachment; filename="a.csv"`},
		{"/a.csv", "x,y\n", "text/csv; charset=utf-8", `attachment; filename="a.csv"`},
		{b.dir + "/a.csv", "x,y\n", "text/csv; charset=utf-8", `attachment; filename="a.csv"`},
		{b.dir[1:] + "/a.csv", "x,y\n", "text/csv; charset=utf-8", `attachment; filename="a.csv"`}, // the S client cuts the slash
		{"index.html", "<p>", "text/html; charset=utf-8", `attachment; filename="index.html"`},
		{"dir%2Fb%20c%23%3F%25.txt", "odd", "text/plain; charset=utf-8", `attachment; filename="b c#?_.txt"; filename*=UTF-8''b%20c#%3F%25.txt`},
		{"workspace/own", "relative", "application/octet-stream", `attachment; filename="own"`},
		{"empty", "", "application/octet-stream", `attachment; filename="empty"`},
		{"%C3%A9%22.bin", "u", "application/octet-stream", `attachment; filename="__.bin"; filename*=UTF-8''%C3%A9%22.bin`},
	} {
		t.Run(tt.url, func(t *testing.T) {
			got := b.get("/api/files/" + tt.url)
			h := got.Header
			if got.StatusCode != 200 || string(got.body) != tt.text || got.ContentLength != int64(len(tt.text)) {
				t.Fatalf("got %d %q %v", got.StatusCode, got.body, h)
			}
			if h.Get("Content-Disposition") != tt.disposition || h.Get("Content-Encoding") != "" || h.Get("Last-Modified") == "" ||
				h.Get("Content-Description") != "File Transfer" || h.Get("Content-Transfer-Encoding") != "binary" {
				t.Errorf("headers: %v", h)
			}
			if h.Get("Content-Type") != tt.contentType {
				t.Errorf("content type: %q", h.Get("Content-Type"))
			}
		})
	}
	h := b.bearer(nil)
	h["Range"], h["Accept-Encoding"] = "bytes=2-4", "gzip"
	if got := b.send("GET", "/api/files/data", h, nil); got.StatusCode != 206 || string(got.body) != "234" ||
		got.Header.Get("Content-Range") != "bytes 2-4/10" || got.Header.Get("Content-Encoding") != "" {
		t.Errorf("range: %d %q %v", got.StatusCode, got.body, got.Header)
	}
	b.get("/api/files/none").expect(t, 404, "File not found", "FILE_NOT_FOUND")
	b.get("/api/files/data/x").expect(t, 404, "File not found", "FILE_NOT_FOUND")
	b.get("/api/files/dir").expect(t, 400, "Path is a directory, not a file", "PATH_IS_DIRECTORY")
	b.get("/api/files/").expect(t, 400, "Path is a directory, not a file", "PATH_IS_DIRECTORY")
	b.get("/api/files/%2E%2E%2Fx").expect(t, 400, "Invalid path: path escapes workspace jail", "PATH_ESCAPES_WORKSPACE")
	b.get("/api/files/a%00b").expect(t, 400, "Invalid path", "INVALID_PATH")
}

func TestList(t *testing.T) {
	b := start(t, nil)
	if got := b.get("/api/files?path=."); string(got.body) != `{"files":[]}` {
		t.Errorf("empty directory: %s", got.body)
	}
	names := []string{"b", "a", "new\nline", "quo\"te", "bad\xff\xfe", "é", " "}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte("12345"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Mkdir(b.dir+"/dir", 0o700), os.Chmod(b.dir+"/dir", 0o755|os.ModeSticky), os.Symlink("/etc", b.dir+"/link"), unix.Mkfifo(b.dir+"/pipe", 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{".", "/", "%2F", b.dir, "dir/.."} {
		got := b.get("/api/files?path=" + path)
		files, _ := got.json(t)["files"].([]any)
		if len(files) != len(names)+3 {
			t.Fatalf("%s: %s", path, got.body)
		}
		seen := map[string]map[string]any{}
		order := []string{}
		for _, f := range files {
			e := f.(map[string]any)
			name := e["name"].(string)
			if raw, ok := e["name_base64"].(string); ok {
				text, _ := base64.StdEncoding.DecodeString(raw)
				name = string(text)
			}
			seen[name] = e
			order = append(order, name)
			if _, err := time.Parse(time.RFC3339, e["modified"].(string)); err != nil {
				t.Error(err)
			}
		}
		if !sort.StringsAreSorted(order) {
			t.Errorf("not sorted: %q", order)
		}
		for _, name := range names {
			if e := seen[name]; e == nil || e["size"] != 5.0 || e["is_dir"] != false || e["mode"] != "-rw-r-----" {
				t.Errorf("%q: %v", name, e)
			}
		}
		if seen["bad\xff\xfe"]["name"] != "bad\uFFFD\uFFFD" {
			t.Errorf("bad name: %v", seen["bad\xff\xfe"])
		}
		for name, mode := range map[string]string{"dir": "dtrwxr-xr-x", "link": "Lrwxrwxrwx", "pipe": "prw-r--r--"} {
			if e := seen[name]; e["mode"] != mode || e["is_dir"] != (name == "dir") {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
	b.get("/api/files").expect(t, 400, "Missing 'path' query parameter", "MISSING_PATH")
	b.get("/api/files?path=").expect(t, 400, "Missing 'path' query parameter", "MISSING_PATH")
	b.get("/api/files?path=none").expect(t, 404, "Directory not found", "DIRECTORY_NOT_FOUND")
	b.get("/api/files?path=a").expect(t, 400, "Path is not a directory", "NOT_A_DIRECTORY")
	b.get("/api/files?path=../x").expect(t, 400, "Invalid path: path escapes workspace jail", "PATH_ESCAPES_WORKSPACE")
	b.get("/api/files?path=link").expect(t, 400, "Invalid path: path escapes workspace jail", "PATH_ESCAPES_WORKSPACE")
}

func TestListMany(t *testing.T) {
	b := start(t, nil)
	for i := range 10_000 {
		if err := os.WriteFile(fmt.Sprintf("%s/f%05d", b.dir, i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := b.get("/api/files?path=.").json(t)["files"].([]any)
	if len(files) != 10_000 || files[1234].(map[string]any)["name"] != "f01234" {
		t.Errorf("%d files", len(files))
	}
}
