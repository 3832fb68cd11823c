package picod

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// arena is a box for whose requests nothing outside the workspace may change.
type arena struct {
	*box
	handler http.Handler
	token   string
}

const maxFuzzUpload = 64 << 10

func newArena(f *testing.F) *arena {
	b := start(f, func(c *Config) { c.MaxUploadBytes = maxFuzzUpload })
	if err := os.WriteFile(filepath.Join(filepath.Dir(b.dir), "secret"), []byte("secret"), 0o600); err != nil {
		f.Fatal(err)
	}
	return &arena{b, b.srv.Handler(), "Bearer " + sign(f, jwt.SigningMethodRS256, b.key, jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()})}
}

// send gives a request to the handler and looks what has become of the files.
func (a *arena) send(t *testing.T, path, contentType string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	for _, name := range a.names(t, a.dir) {
		if err := os.RemoveAll(filepath.Join(a.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range [][2]string{{"..", "out"}, {"../secret", "file"}, {"inner", "in"}} {
		if err := os.Symlink(link[0], filepath.Join(a.dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequest("POST", path, bytes.NewReader(body))
	r.Header.Set("Authorization", a.token)
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	base := filepath.Dir(a.dir)
	if beside := a.names(t, base); len(beside) != 2 {
		t.Errorf("beside the workspace are %q", beside)
	}
	if text, err := os.ReadFile(filepath.Join(base, "secret")); err != nil || string(text) != "secret" {
		t.Errorf("the secret is %q, %v", text, err)
	}
	a.checkAnswer(t, w)
	err := filepath.WalkDir(a.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".picod-upload-") && !bytes.Contains(body, []byte(".picod-upload-")) {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return w
}

func (a *arena) checkAnswer(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var answer struct {
		Error     string `json:"error"`
		Reason    string `json:"reason"`
		RequestID string `json:"requestId"`
	}
	err := json.Unmarshal(w.Body.Bytes(), &answer)
	switch {
	case err != nil:
		t.Errorf("answered %d %q", w.Code, w.Body)
	case w.Code >= 400 && (answer.Error == "" || answer.Reason == "" || answer.RequestID == ""):
		t.Errorf("answered %d %s", w.Code, w.Body)
	case w.Code == 500 && answer.Reason == "INTERNAL":
		t.Errorf("has no words for it: %s", w.Body)
	case strings.Contains(w.Body.String(), filepath.Dir(a.dir)):
		t.Errorf("names a path of the daemon's: %s", w.Body)
	}
}

func (a *arena) names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// FuzzForm: whatever a form is, one file at most is written, within the workspace,
// no larger than the form.
func FuzzForm(f *testing.F) {
	a := newArena(f)
	for _, fields := range [][]field{
		{{"path", "", "a"}, {"file", "f", "hello"}}, {{"file", "f", "hello"}, {"path", "", "d/a"}, {"mode", "", "0600"}}, {{"path", "", "../a"}, {"file", "f", "x"}},
		{{"path", "", "out/a"}, {"file", "f", "x"}}, {{"path", "", "file"}, {"file", "f", "x"}}, {{"path", "", "a"}, {"path", "", "b"}, {"file", "f", "x"}, {"file", "g", "y"}},
		{{"path", "", ""}, {"file", "f", "x"}}, {{"path", "", "in"}, {"file", "f", ""}}, {{"path", "", "a"}, {"mode", "", "99999999999999999999"}, {"file", "f", "x"}, {"signature", "", "a.b.c"}},
	} {
		contentType, body := buildForm(f, fields...)
		_, params, err := mime.ParseMediaType(contentType)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("multipart/form-data; boundary=b", bytes.ReplaceAll(body, []byte(params["boundary"]), []byte("b")))
	}
	for _, contentType := range []string{"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"a\\", "multipart/form-data; boundary=" + strings.Repeat("b", 100)} {
		f.Add(contentType, []byte("--b\r\n\r\n--b--"))
	}
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=file; filename=../../x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=00=\r\n--b\r\n"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		if !strings.HasPrefix(contentType, "multipart/form-data") {
			contentType = "multipart/form-data" + contentType
		}
		w := a.send(t, "/api/files", contentType, body)
		if w.Code != http.StatusOK {
			return
		}
		var out uploadResponse
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Size > int64(len(body)) || out.Size > maxFuzzUpload {
			t.Errorf("a form of %d bytes: %s, %v", len(body), w.Body, err)
		}
		if info, err := os.Stat(filepath.Join(a.dir, out.Path)); utf8.ValidString(out.Path) && !strings.Contains(out.Path, "\uFFFD") && (err != nil || info.Size() != out.Size) {
			t.Errorf("%q is not there: %v", out.Path, err)
		}
	})
}

// FuzzUploadJSON: whatever the JSON, one file at most is written, within the workspace.
func FuzzUploadJSON(f *testing.F) {
	a := newArena(f)
	for _, body := range []string{
		`{"path":"a","content":"aGVsbG8="}`, `{"path":"../a","content":""}`, `{"path":"out/a","content":""}`, `{"path":"a\u0000","content":""}`, `{"path":"a/b/c","content":"YQ=="}`,
		`{"path":"a","content":"YQ","mode":"x"}`, `{"path":"a","content":null}`, `{"path":"a","content":"","mode":"7777777777777777777777"}`, `[]`, `{`, `{"path":"` + strings.Repeat("a/", 300) + `","content":""}`,
		`{"path":"` + strings.Repeat("a", 300) + `","content":""}`, `{"PATH":"a","Content":""}`, `{"path":"a","content":""} trailing`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { a.send(t, "/api/files", "application/json", body) })
}

// FuzzExecute: what is run for a request is what it says, in the workspace, with
// variables that a process can have, for no longer than it may.
func FuzzExecute(f *testing.F) {
	a := newArena(f)
	for _, body := range []string{
		`{"command":["true"]}`, `{"command":[]}`, `{"command":null}`, `{"command":"true"}`, `{"command":["a\u0000b"]}`, `{"command":["a"],"timeout":"10"}`, `{"command":["a"],"timeout":"1e-05s"}`,
		`{"command":["a"],"timeout":"-1s"}`, `{"command":["a"],"timeout":"1e999s"}`, `{"command":["a"],"timeout":"9999999h"}`, `{"command":["a"],"working_dir":"../x"}`, `{"command":["a"],"working_dir":"out/new"}`,
		`{"command":["a"],"working_dir":"in/new"}`, `{"command":["a"],"env":{"A=B":"c"}}`, `{"command":["a"],"env":{"A":"b\u0000"}}`, `{"command":["a"],"env":{"":"b","PWD":"/","PATH":"x"}}`,
		`{"command":["a"],"stdin":"YQ==","remove":["a","../b"]}`, `{"command":["a"],"remove":["out/secret"]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/api/execute", bytes.NewReader(body))
		r.Header.Set("Authorization", a.token)
		q := &request{Server: a.srv, w: httptest.NewRecorder(), r: r, id: "x"}
		var in executeRequest
		if p := q.readJSON(&in); p != nil {
			if p.status < 400 || p.status > 499 || p.text == "" {
				t.Errorf("refused with %+v", p)
			}
			return
		}
		cmd, p := q.command(in)
		if p != nil {
			if p.text == "" || p.reason == "" || p.reason == "INTERNAL" {
				t.Errorf("%q refused with %+v", body, p)
			}
			return
		}
		if rel, err := filepath.Rel(a.dir, cmd.Dir); err != nil || !filepath.IsLocal(rel) || cmd.Timeout < 0 || cmd.Timeout > a.srv.cfg.MaxTimeout || len(cmd.Argv) == 0 {
			t.Errorf("%q runs %+v", body, cmd)
		}
		for _, kv := range cmd.Env {
			if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.Contains(kv, "\x00") {
				t.Errorf("%q has the variable %q", body, kv)
			}
		}
		if removals, p := q.removals(in.Remove); p == nil {
			for _, rel := range removals {
				if !filepath.IsLocal(rel) {
					t.Errorf("%q removes %q", body, rel)
				}
			}
		}
	})
}

// FuzzDisposition: a file's name in a header is one value, which says the name.
func FuzzDisposition(f *testing.F) {
	for _, name := range []string{"a.txt", "a\r\nb", `a"; filename=b`, "é", "\xff", "%0d", "a;b", `\`, "'", "\u202e"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := disposition(name)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is in the header as %q", name, got)
		}
		_, params, err := mime.ParseMediaType(got)
		if want := strings.ToValidUTF8(name, "\uFFFD"); err != nil || params["filename"] != want || len(params) != 1 {
			t.Errorf("%q is called %q by %q, %v", name, params, got, err)
		}
	})
}
