package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/client"
)

// sandboxFiles serves listings and files as PicoD would, whatever they hold.
type sandboxFiles struct {
	listing string
	files   map[string]string
}

func (s sandboxFiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, path, data := strings.Cut(r.URL.Path, "/invocations/api/files")
	content, found := s.files[strings.TrimPrefix(path, "/")]
	switch {
	case !data:
		fmt.Fprint(w, `{"sessionId":"s1"}`)
	case r.URL.Query().Has("path"):
		fmt.Fprint(w, s.listing)
	case content == "cut":
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	case found:
		fmt.Fprint(w, content)
	default:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"Path is a directory, not a file","code":400}`)
	}
}

func copierTo(t *testing.T, files sandboxFiles) *copier {
	t.Helper()
	srv := httptest.NewServer(files)
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{BaseURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s, err := c.CreateSession(t.Context(), client.CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	return newCopier(&app{Process: Process{Stdout: io.Discard, Stderr: io.Discard}}, s)
}

// names lists what is in a folder, also what is hidden.
func names(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		rel, rerr := filepath.Rel(dir, p)
		all = append(all, rel)
		if err == nil {
			err = rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestNamesFromTheSandboxStayInTheirFolder(t *testing.T) {
	for _, name := range []string{"../x", "..", ".", "", "/etc/x", "a/b", `a\\b`} {
		root := t.TempDir()
		c := copierTo(t, sandboxFiles{
			listing: fmt.Sprintf(`{"files":[{"name":"%s","mode":"-rw-r--r--","is_dir":false}]}`, name),
			files:   map[string]string{"d/../x": "evil", "x": "evil", "d/a/b": "evil", "etc/x": "evil", `d/a\b`: "evil"},
		})
		err := c.out(t.Context(), "d", filepath.Join(root, "sub", "d")+"/")
		if err == nil || !strings.Contains(err.Error(), "refused the name") {
			t.Errorf("name %q: %v", name, err)
		}
		if got := names(t, root); strings.Contains(got, "x") || strings.Contains(got, "b") && !strings.HasSuffix(got, "sub sub/d sub/d/d") {
			t.Errorf("name %q: left %s", name, got)
		}
	}
}

func TestCopyOutOfAFolder(t *testing.T) {
	root := t.TempDir()
	c := copierTo(t, sandboxFiles{
		listing: `{"files":[{"name":"a b#","mode":"-rw-r--r--"},{"name":"link","mode":"Lrwxrwxrwx"}]}`,
		files:   map[string]string{"d/a b#": "content"},
	})
	if err := c.out(t.Context(), "d", root); err != nil {
		t.Fatal(err)
	}
	if got := names(t, root); got != ". d d/a b#" {
		t.Errorf("left %q", got)
	}
}

func TestBrokenDownloadLeavesWhatWasThere(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(root, "f")
	if err := os.WriteFile(target, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := copierTo(t, sandboxFiles{listing: "{", files: map[string]string{"f": "cut", "g": "after"}})
	if err := c.out(t.Context(), "f", target); err == nil {
		t.Error("half a file counts as a whole one")
	}
	if got, err := os.ReadFile(target); string(got) != "before" || err != nil {
		t.Errorf("target holds %q, %v", got, err)
	}
	if got := names(t, root); got != ". f" {
		t.Errorf("left %q", got)
	}
	if err := c.out(t.Context(), "g", target); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(target); string(got) != "after" || err != nil {
		t.Errorf("target holds %q, %v", got, err)
	}
}

func TestCopyOutWritesThroughLinksAndDevices(t *testing.T) {
	root := t.TempDir()
	real, link := filepath.Join(root, "real"), filepath.Join(root, "link")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	c := copierTo(t, sandboxFiles{files: map[string]string{"f": "x"}})
	if err := c.out(t.Context(), "f", link); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(real); string(got) != "x" || err != nil {
		t.Errorf("the link's target holds %q, %v", got, err)
	}
	if err := c.out(t.Context(), "f", os.DevNull); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("%s is not the device any more", os.DevNull)
	}
}

func TestSplitting(t *testing.T) {
	for _, tt := range []struct{ spec, from, to string }{
		{"a", "a", ""}, {"a:b", "a", "b"}, {"a:b:c", "a:b", "c"}, {":b", ":b", ""}, {"a:", "a", ""},
	} {
		if from, to := splitPair(tt.spec); from != tt.from || to != tt.to {
			t.Errorf("splitPair(%q) = %q, %q", tt.spec, from, to)
		}
	}
	for _, tt := range []struct {
		arg, id, path string
		remote        bool
	}{
		{"id:p", "id", "p", true}, {"id:/a:b", "id", "/a:b", true}, {"id:", "id", "", true},
		{"./a:b", "", "./a:b", false}, {"a", "", "a", false}, {":a", "", ":a", false}, {"-", "", "-", false},
	} {
		id, path, remote := remoteArg(tt.arg)
		if id != tt.id || path != tt.path || remote != tt.remote {
			t.Errorf("remoteArg(%q) = %q, %q, %v", tt.arg, id, path, remote)
		}
	}
	for ref, want := range map[string]string{"n": "default/n", "a/n": "a/n", "": "", "/n": "", "a/": "", "a/b/c": ""} {
		namespace, name, err := templateName(ref)
		if (err != nil) != (want == "") || err == nil && namespace+"/"+name != want {
			t.Errorf("templateName(%q) = %q, %q, %v", ref, namespace, name, err)
		}
	}
}

func TestWhatATerminalShows(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü": "plain ü", "\x1b[2J": `"\x1b[2J"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`, "\u202e": `"\u202e"`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %s", in, got)
		}
	}
	if got := oneLine("a\nb\r\nc"); got != "a; b; c" {
		t.Errorf("oneLine: %s", got)
	}
}

func TestCommandExit(t *testing.T) {
	for in, want := range map[int]int{0: 0, 7: 7, 124: 124, 255: 255, -1: exitKilled, 256: exitKilled} {
		if got := commandExit(client.ExecResult{ExitCode: in}); got != want {
			t.Errorf("exit code %d became %d, want %d", in, got, want)
		}
	}
	for why, want := range map[client.StartError]int{
		client.StartNotFound: 127, client.StartNotExecutable: 126, client.StartOther: 126, "of tomorrow": 126,
	} {
		if got := commandExit(client.ExecResult{ExitCode: 1, StartError: why}); got != want {
			t.Errorf("a command not started, %s, became %d, want %d", why, got, want)
		}
	}
}

func TestPlainProgressIsRare(t *testing.T) {
	var out bytes.Buffer
	a := &app{Process: Process{Stderr: &out}}
	p := a.progressBytes("upload x", 10)
	p.add(5)
	p.finish()
	if out.Len() != 0 {
		t.Errorf("short work said %q", out.String())
	}
	p.next = p.next.Add(-plainEvery)
	p.add(1)
	p.add(1)
	if got := out.String(); got != "upload x: 6 B of 10 B\n" {
		t.Errorf("long work said %q", got)
	}
	a.noProgress = true
	a.progressBytes("y", 1).add(1)
	if strings.Contains(out.String(), "y") {
		t.Error("progress was shown though it was turned off")
	}
}
