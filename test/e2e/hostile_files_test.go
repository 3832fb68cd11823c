package e2e

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/client"
)

// fileAttacks turn the file API against what it serves.
func fileAttacks() []hostile {
	return []hostile{
		{name: "links out of the workspace", python: `
os.symlink("/etc", "folder")
os.symlink("/", "root")
os.symlink("/etc/passwd", "file")
os.symlink("/etc/dangling", "dangling")
os.symlink("/proc/1/root/etc", "proc")
os.symlink("../../../../etc", "up")
os.symlink("loop", "loop")
os.mkdir("inside")
os.symlink("inside", "fine")
`, api: linksOut},
		{name: "links that change while they are used", python: `
os.makedirs("real")
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
    while True:
        try:
            os.symlink("real", "new"); os.rename("new", "flip")
            os.symlink("/etc", "new"); os.rename("new", "flip")
        except OSError:
            pass
os._exit(0)
`, api: changingLinks},
		{name: "pipes, sockets and devices", python: `
os.mkfifo("pipe")
s = socket.socket(socket.AF_UNIX); s.bind("socket")
os.symlink("/dev/zero", "zero")
os.symlink("/dev/stdin", "stdin")
os.symlink("/proc/self/fd/0", "fd")
os.symlink("pipe", "pipelink")
`, api: specialFiles},
		{name: "10,000 files in a listing", python: `
os.mkdir("many")
for n in range(10000):
    with open(f"many/file-{n:05}", "w") as f:
        pass
`, api: func(t *testing.T, _ *battlefield, s *client.Session) {
			files, err := s.ListFiles(t.Context(), "many")
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != 10000 || files[0].Name != "file-00000" || files[9999].Name != "file-09999" {
				t.Errorf("%d files are listed", len(files))
			}
		}},
		{name: "folders without bottom", python: `
for _ in range(300):
    os.mkdir("d"); os.chdir("d")
`, api: func(t *testing.T, _ *battlefield, s *client.Session) {
			deep := strings.Repeat("d/", 300)
			if files, err := s.ListFiles(t.Context(), deep); err != nil || len(files) != 0 {
				t.Errorf("300 folders down: %v, %v", files, err)
			}
			if err := s.WriteFile(t.Context(), deep+"file", []byte("deep")); err != nil {
				t.Errorf("300 folders down: %v", err)
			}
			_, err := s.ListFiles(t.Context(), strings.Repeat("d/", 4000))
			wantStatus(t, "a path that is too long", err, 400)
		}},
		{name: "odd names", python: `
with open(b"made inside \xff\xfe", "w") as f:
    f.write("x")
`, api: oddNames},
		{name: "odd paths", api: func(t *testing.T, _ *battlefield, s *client.Session) {
			for _, path := range []string{"../outside", "a/../../outside", "nul\x00byte", strings.Repeat("n", 256)} {
				wantStatus(t, fmt.Sprintf("upload to %.20q", path), s.WriteFile(t.Context(), path, []byte("x")), 400)
			}
			for _, path := range []string{"..", "../../etc", "a/../../etc/passwd"} {
				_, err := s.ListFiles(t.Context(), path)
				wantStatus(t, "listing of "+path, err, 400)
				body, _, err := s.Download(t.Context(), path)
				if err == nil {
					body.Close()
				}
				wantStatus(t, "download of "+path, err, 400)
			}
			// An absolute path is one below the workspace.
			if err := s.WriteFile(t.Context(), "/etc/passwd", []byte("mine")); err != nil {
				t.Error(err)
			}
			if got := output(t, s, "cat etc/passwd; grep -c root /etc/passwd"); got != "mine1\n" {
				t.Errorf("the sandbox has %q", got)
			}
		}},
	}
}

func linksOut(t *testing.T, _ *battlefield, s *client.Session) {
	before := output(t, s, "ls -A /etc | sort | md5sum; md5sum /etc/passwd")
	for _, path := range []string{"folder/evil", "root/etc/evil", "root/tmp/evil", "dangling", "proc/evil", "up/evil", "loop", "loop/evil", "folder/new/evil"} {
		wantStatus(t, "upload to "+path, s.WriteFile(t.Context(), path, []byte("evil")), 400)
	}
	for _, path := range []string{"file", "folder/passwd", "root/etc/passwd", "proc/passwd", "up/passwd", "loop"} {
		_, _, err := s.Download(t.Context(), path)
		wantStatus(t, "download of "+path, err, 400)
	}
	for _, path := range []string{"folder", "root", "root/etc", "proc", "up"} {
		_, err := s.ListFiles(t.Context(), path)
		wantStatus(t, "listing of "+path, err, 400)
	}
	_, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}, WorkingDir: "folder"})
	wantStatus(t, "working directory folder", err, 400)
	if after := output(t, s, "ls -A /etc | sort | md5sum; md5sum /etc/passwd"); after != before {
		t.Errorf("/etc has changed")
	}
	if got := output(t, s, "ls /tmp"); got != "" {
		t.Errorf("/tmp holds %q", got)
	}
	// Those that lead to what is inside are fine.
	if err := s.WriteFile(t.Context(), "fine/file", []byte("fine")); err != nil {
		t.Error(err)
	}
	if got := output(t, s, "cat inside/file"); got != "fine" {
		t.Errorf("inside/file holds %q", got)
	}
}

// changingLinks: a folder that is now real and now a link to /etc is never
// written or read through as a link.
func changingLinks(t *testing.T, _ *battlefield, s *client.Session) {
	before := output(t, s, "ls -A /etc")
	for n := range 150 {
		err := s.WriteFile(t.Context(), fmt.Sprintf("flip/evil-%d", n), []byte("evil"))
		if err != nil {
			wantStatus(t, "upload", err, 400)
		}
		if body, _, err := s.Download(t.Context(), "flip/hostname"); err == nil {
			content, _ := io.ReadAll(body)
			body.Close()
			t.Fatalf("downloaded %q", content)
		}
	}
	if after := output(t, s, "ls -A /etc"); after != before {
		t.Errorf("/etc holds %q, it held %q", after, before)
	}
}

func specialFiles(t *testing.T, _ *battlefield, s *client.Session) {
	for _, name := range []string{"pipe", "socket", "zero", "stdin", "fd", "pipelink"} {
		_, _, err := s.Download(t.Context(), name)
		wantStatus(t, "download of "+name, err, 400)
	}
	files, err := s.ListFiles(t.Context(), "")
	if err != nil || len(files) != 6 {
		t.Errorf("listed %v, %v", files, err)
	}
	for _, path := range []string{"/dev/zero", "/dev/null", "/proc/kmsg", "../dev/zero"} {
		if body, _, err := s.Download(t.Context(), path); err == nil {
			body.Close()
			t.Errorf("%s was downloaded", path)
		}
	}
	// A pipe that nobody reads does not hold up whoever writes: it is replaced,
	// or refused.
	if err := s.WriteFile(t.Context(), "pipe", []byte("x")); err != nil {
		wantStatus(t, "upload to a pipe", err, 400)
	} else if got := output(t, s, "stat -c %F pipe"); got != "regular file\n" {
		t.Errorf("after the upload the pipe is a %s", got)
	}
}

// oddNames have a file go in, be listed, be read inside and come out under
// names with every character that means something to somebody.
func oddNames(t *testing.T, _ *battlefield, s *client.Session) {
	names := []string{
		"blank in it", " blank before", "blank behind ", "tab\tin it", "line\nbreak", "return\rin it", "quote\"s'`", "back\\slash",
		"per%cent", "%2F", "%2e%2e", "%00", "question?mark", "hash#tag", "plus+and&amp;", "semi;colon", "equals=", "at@", "co:lon",
		"-rf", "--", "...", "....", "~", "$HOME", "$(reboot)", "`reboot`", "*", "[a]", "{a,b}", "|", "<>", "!", "index.html",
		"ünïcödé-日本語-🙂", "\u202egnp.exe", "\u0007bell\u001b[31m", "zero\u200bwidth", "e\u0301", ".hidden", strings.Repeat("n", 255),
	}
	for _, name := range names {
		if err := s.WriteFile(t.Context(), "names/"+name, []byte(name)); err != nil {
			t.Errorf("upload of %q: %v", name, err)
			continue
		}
		body, _, err := s.Download(t.Context(), "names/"+name)
		if err != nil {
			t.Errorf("download of %q: %v", name, err)
			continue
		}
		content, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(content) != name {
			t.Errorf("download of %q gave %q, %v", name, content, err)
		}
		if res := run(t, s, "cat", "--", "names/"+name); !bytes.Equal(res.Stdout, []byte(name)) {
			t.Errorf("inside, %q holds %q: %s", name, res.Stdout, res.Stderr)
		}
	}
	files, err := s.ListFiles(t.Context(), "names")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, f := range files {
		listed = append(listed, f.Name)
	}
	slices.Sort(names)
	if !slices.Equal(listed, names) {
		t.Errorf("listed %q, want %q", listed, names)
	}
	// A name that is no text does not spoil the listing of the others.
	if files, err := s.ListFiles(t.Context(), ""); err != nil || len(files) != 2 {
		t.Errorf("listed %v, %v", files, err)
	}
}
