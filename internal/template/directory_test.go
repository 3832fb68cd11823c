package template_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/logtest"
	"github.com/volcano-sh/agentcube/internal/template"
)

// yaml is a file with one CodeInterpreter for each of the names, of the image.
func yaml(image string, names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "---\napiVersion: runtime.agentcube.volcano.sh/v1alpha1\nkind: CodeInterpreter\n"+
			"metadata: {name: %s}\nspec: {template: {image: %q}}\n", name, image)
	}
	return b.String()
}

const broken = "apiVersion: runtime.agentcube.volcano.sh/v1alpha1\nkind: CodeInterpreter\nmetadata: {name: a}\nspec: {tmplate: {}}\n"

type folder struct {
	t   *testing.T
	dir string
	src *template.Directory
	log *logtest.Buffer
}

func newFolder(t *testing.T) *folder {
	f := &folder{t: t, dir: filepath.Join(t.TempDir(), "templates"), log: &logtest.Buffer{}}
	base, err := template.Parse("base", []byte(yaml("shipped", "base")), "")
	if err != nil {
		t.Fatal(err)
	}
	f.src = template.NewDirectory(template.Options{Dir: f.dir, Base: base, Log: slog.New(slog.NewTextHandler(f.log, nil))})
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) remove(name string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) load() {
	f.t.Helper()
	if err := f.src.Load(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// want checks the images by name, and what the problems say.
func (f *folder) want(images map[string]string, problems ...string) {
	f.t.Helper()
	got := map[string]string{}
	for _, t := range f.src.List() {
		got[t.Name] = t.Image
	}
	if diff := cmp.Diff(images, got); diff != "" {
		f.t.Errorf("templates (-want +got):\n%s", diff)
	}
	found := f.src.Problems()
	if len(found) != len(problems) {
		f.t.Fatalf("problems %v, want %d", found, len(problems))
	}
	for i, p := range problems {
		if !strings.Contains(found[i].String(), p) {
			f.t.Errorf("problem %q does not say %q", found[i], p)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type images = map[string]string

func TestDirectory(t *testing.T) {
	f := newFolder(t)
	f.want(images{"base": "shipped"})
	f.write("a.yaml", yaml("1", "a"))
	f.write("two.yml", yaml("2", "b", "c"))
	f.write("j.json", `{"apiVersion":"runtime.agentcube.volcano.sh/v1alpha1","kind":"CodeInterpreter","metadata":{"name":"j"},"spec":{"template":{"image":"3"}}}`)
	f.write(".hidden.yaml", yaml("4", "hidden"))
	f.write("notes.txt", "no template")
	f.write("a.yaml~", yaml("5", "backup"))
	if err := os.Mkdir(filepath.Join(f.dir, "sub.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.load()
	f.want(images{"base": "shipped", "a": "1", "b": "2", "c": "2", "j": "3"})

	f.write("a.yaml", yaml("1.1", "a", "base"))
	f.remove("two.yml")
	f.load()
	f.want(images{"base": "1.1", "a": "1.1", "j": "3"})

	f.remove("a.yaml")
	f.load()
	f.want(images{"base": "shipped", "j": "3"})
}

// A file that breaks keeps what was last good of it, all of it or nothing.
func TestDirectoryBrokenFile(t *testing.T) {
	f := newFolder(t)
	f.write("bad.yaml", broken)
	f.write("good.yaml", yaml("1", "g"))
	f.load()
	f.want(images{"base": "shipped", "g": "1"}, "bad.yaml:4: spec.template: is missing", `bad.yaml:4: spec.tmplate: there is no such field; did you mean "template"?`)

	f.write("bad.yaml", yaml("1", "a", "b"))
	f.load()
	f.want(images{"base": "shipped", "g": "1", "a": "1", "b": "1"})

	f.write("bad.yaml", yaml("2", "a", "new")+"---\n"+broken)
	f.load()
	f.load()
	f.want(images{"base": "shipped", "g": "1", "a": "1", "b": "1"}, "metadata.name", "spec.template", "tmplate")
	if n := strings.Count(f.log.String(), "tmplate"); n != 2 {
		t.Errorf("the mistake was logged %d times, want once for each of the two versions:\n%s", n, f.log)
	}

	f.remove("bad.yaml")
	f.load()
	f.want(images{"base": "shipped", "g": "1"})
}

// Of two files with the same template the one that has it keeps it, and the
// other is refused as a whole until the name is free.
func TestDirectoryDuplicate(t *testing.T) {
	f := newFolder(t)
	f.write("m.yaml", yaml("m", "x"))
	f.load()
	f.write("a.yaml", yaml("a", "x", "y"))
	f.write("z.yaml", yaml("z", "x"))
	f.load()
	f.want(images{"base": "shipped", "x": "m"}, "a.yaml: metadata.name: CodeInterpreter default/x is already defined in m.yaml", "z.yaml")
	f.remove("m.yaml")
	f.load()
	f.want(images{"base": "shipped", "x": "a", "y": "a"}, "z.yaml: metadata.name: CodeInterpreter default/x is already defined in a.yaml")
}

func TestDirectoryMissingAndUnreadable(t *testing.T) {
	f := newFolder(t)
	if err := os.Remove(f.dir); err != nil {
		t.Fatal(err)
	}
	f.load()
	f.want(images{"base": "shipped"})
	if err := os.WriteFile(f.dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.src.Load(t.Context()); err == nil {
		t.Error("a file in the place of the folder was read")
	}
	if err := errors.Join(os.Remove(f.dir), os.Mkdir(f.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	f.write("ok.yaml", yaml("1", "ok"))
	for name, target := range map[string]string{"dangling.yaml": "nowhere", "loop.yaml": "loop.yaml", "zero.yaml": "/dev/zero"} {
		if err := os.Symlink(target, filepath.Join(f.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	f.write("large.yaml", strings.Repeat("#", template.MaxFileBytes+1))
	f.load()
	f.want(images{"base": "shipped", "ok": "1"}, "large.yaml: is larger than", "loop.yaml", "zero.yaml: is not a regular file")
}

func TestDirectoryWatch(t *testing.T) {
	change := map[string]func(f *folder){
		"a new file":    func(f *folder) { f.write("b.yaml", yaml("new", "b")) },
		"written again": func(f *folder) { f.write("a.yaml", yaml("new", "b")) },
		"renamed over, as editors do": func(f *folder) {
			f.write(".a.yaml.swp", yaml("new", "b"))
			if err := os.Rename(filepath.Join(f.dir, ".a.yaml.swp"), filepath.Join(f.dir, "a.yaml")); err != nil {
				f.t.Fatal(err)
			}
		},
		"moved away and made anew": func(f *folder) {
			if err := os.Rename(filepath.Join(f.dir, "a.yaml"), filepath.Join(f.dir, "a.yaml~")); err != nil {
				f.t.Fatal(err)
			}
			f.write("a.yaml", yaml("new", "b"))
		},
		"the folder replaced": func(f *folder) {
			if err := errors.Join(os.RemoveAll(f.dir), os.Mkdir(f.dir, 0o755)); err != nil {
				f.t.Fatal(err)
			}
			f.write("a.yaml", yaml("new", "b"))
		},
	}
	for name, change := range change {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.write("a.yaml", yaml("old", "a"))
			f.run()
			f.wait("a", "old")
			change(f)
			f.wait("b", "new")
		})
	}
	t.Run("the folder comes later", func(t *testing.T) {
		t.Parallel()
		f := newFolder(t)
		if err := os.Remove(f.dir); err != nil {
			t.Fatal(err)
		}
		f.run()
		f.wait("base", "shipped")
		if err := os.Mkdir(f.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f.write("a.yaml", yaml("new", "b"))
		f.wait("b", "new")
	})
	// A ConfigMap's files are links through ..data, which is swapped.
	t.Run("ConfigMap", func(t *testing.T) {
		t.Parallel()
		f := newFolder(t)
		version := func(n, image string) {
			if err := os.Mkdir(filepath.Join(f.dir, "..v"+n), 0o755); err != nil {
				t.Fatal(err)
			}
			f.write(filepath.Join("..v"+n, "a.yaml"), yaml(image, "a"))
			if err := os.Symlink("..v"+n, filepath.Join(f.dir, "..new")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(f.dir, "..new"), filepath.Join(f.dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		version("1", "old")
		if err := os.Symlink("..data/a.yaml", filepath.Join(f.dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		f.run()
		f.wait("a", "old")
		version("2", "new")
		f.wait("a", "new")
	})
}

// run follows the folder until the test ends.
func (f *folder) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.src.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
}

// wait waits until the template has the image.
func (f *folder) wait(name, image string) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if got, err := f.src.Get("CodeInterpreter", "default", name); err == nil && got.Image == image {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("template %s never had image %s; log:\n%s", name, image, f.log)
		}
	}
}
