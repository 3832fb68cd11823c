package security

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDefences holds the list to the code: it is switched off what is there, and
// what shall notice exists.
func TestDefences(t *testing.T) {
	names := map[string]bool{}
	by := map[Attacker]int{}
	for _, d := range Defences() {
		if d.Name == "" || names[d.Name] {
			t.Errorf("the name %q is empty, or there twice", d.Name)
		}
		names[d.Name] = true
		by[d.By]++
		if d.Attack == "" || strings.HasSuffix(d.Attack, ".") {
			t.Errorf("%s: the attack is to be the end of a sentence: %q", d.Name, d.Attack)
		}
		if strings.HasSuffix(d.File, "_test.go") || strings.Contains(d.File, "/tests/") {
			t.Errorf("%s: %s is a test", d.Name, d.File)
		}
		content := read(t, d.File)
		if without, err := d.Without(content); err != nil {
			t.Error(err)
		} else if without == content {
			t.Errorf("%s: it is not switched off", d.Name)
		}
		if d.Noticed.Python() != strings.HasPrefix(d.File, sdk+"/") {
			t.Errorf("%s: %s cannot notice what is missing in %s", d.Name, d.Noticed, d.File)
		}
	}
	for _, a := range Attackers() {
		if by[a] == 0 {
			t.Errorf("no defence is against a %s", a)
		}
		delete(by, a)
	}
	for a := range by {
		t.Errorf("%q is no attacker", a)
	}
}

// TestAttacks: the tests of the list exist, under their names and in their folders.
func TestAttacks(t *testing.T) {
	all := slices.Concat(testsOf(Defences()), Attacks())
	for _, test := range all {
		files, pattern := []string{test.In}, `(?m)^def `+test.Name+`\(`
		if !test.Python() {
			paths, err := filepath.Glob(filepath.Join(root, test.In, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			files, pattern = nil, `(?m)^func `+test.function()+`\(t \*testing\.T\)`
			for _, p := range paths {
				files = append(files, strings.TrimPrefix(p, root+"/"))
			}
		}
		defined := func(file string) bool { return regexp.MustCompile(pattern).MatchString(read(t, file)) }
		if !slices.ContainsFunc(files, defined) {
			t.Errorf("there is no test %s in %s", test.Name, test.In)
		}
	}
}

var shown = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)`")

// TestNamedTests: docs/security.md gives no test as proof that does not exist.
func TestNamedTests(t *testing.T) {
	defined := map[string]bool{}
	for _, dir := range []string{"api", "client", "cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(text, -1) {
				defined[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := shown.FindAllStringSubmatch(read(t, "docs/security.md"), -1)
	for _, m := range named {
		if !defined[m[1]] {
			t.Errorf("there is no test %s", m[1])
		}
	}
	if len(named) < 50 {
		t.Errorf("only %d tests are named: are they found?", len(named))
	}
}

func TestWithout(t *testing.T) {
	d := Defence{Name: "d", File: "f", From: "b", To: "c"}
	if got, err := d.Without("ab"); got != "ac" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, content := range []string{"a", "bb"} {
		if got, err := d.Without(content); err == nil {
			t.Errorf("of %q it makes %q", content, got)
		}
	}
}
