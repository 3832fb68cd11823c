package docs

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSettings holds docs/configuration.md to the settings that there are.
func TestSettings(t *testing.T) {
	out, err := command(t, env.dir, "env", "-i", "HOME=/home/you", env.bin, "config", "print", "--output", "json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var printed struct {
		Settings []struct{ Key, Value, Usage, Env, Flag string }
	}
	if err := json.Unmarshal([]byte(out), &printed); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, s := range printed.Settings {
		value := "`" + strings.ReplaceAll(s.Value, "/home/you", "~") + "`"
		if s.Value == "" || s.Key == "templateDir" { // its usage says it
			value = ""
		}
		usage := strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(s.Usage)
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", s.Key, value, usage))
		if derived := "AGENTCUBE_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(s.Flag, "--"), "-", "_")); s.Env != derived {
			t.Errorf("the page says that the variable of %s is %s, it is %s", s.Key, derived, s.Env)
		}
	}
	sameTable(t, "docs/configuration.md", "| setting | default | what it is |", want)
}

var listed = regexp.MustCompile(`(?m)^  ([a-z-]+) +(\S.*)$`)

// TestCommands holds docs/cli.md to the commands that there are.
func TestCommands(t *testing.T) {
	var want []string
	var walk func(path []string)
	walk = func(path []string) {
		out, err := command(t, env.dir, append(append([]string{env.bin}, path...), "--help")...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", path, err, out)
		}
		_, rest, ok := strings.Cut(out, "\nAvailable Commands:\n")
		if !ok {
			return
		}
		rest, _, _ = strings.Cut(rest, "\n\n")
		for _, m := range listed.FindAllStringSubmatch(rest, -1) {
			sub := append(append([]string{}, path...), m[1])
			if m[1] == "help" || m[1] == "completion" {
				continue
			}
			want = append(want, fmt.Sprintf("| `agentcube %s` | %s |", strings.Join(sub, " "), m[2]))
			walk(sub)
		}
	}
	walk(nil)
	sameTable(t, "docs/cli.md", "| command | what it does |", want)
}

// sameTable compares the rows of the table with a certain head.
func sameTable(t *testing.T, page, head string, want []string) {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, page), head+"\n")
	if !ok {
		t.Fatalf("%s has no table %q", page, head)
	}
	table, _, _ := strings.Cut(rest, "\n\n")
	_, rows, _ := strings.Cut(table, "\n") // the line of dashes
	if got := strings.TrimSpace(rows); got != strings.Join(want, "\n") {
		t.Errorf("%s: the table must be\n%s\nit is\n%s", page, strings.Join(want, "\n"), got)
	}
}

var (
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	target = regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`)
)

// TestReferences: what the pages refer to is there.
func TestReferences(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, page := range pages(t) {
		text := read(t, page)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to, _, _ := strings.Cut(m[1], "#")
			if to == "" || strings.Contains(to, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(env.root, filepath.Dir(page), to)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
			}
		}
		for _, code := range regexp.MustCompile("`[^`\n]+`|(?m)^\\$ make .*$").FindAllString(text, -1) {
			for _, m := range target.FindAllStringSubmatch(code, -1) {
				if !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s: the Makefile has no target %s", page, m[1])
				}
			}
		}
	}
}

var testName = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")

// TestNamedTests: a test that a page gives as proof exists.
func TestNamedTests(t *testing.T) {
	defined := map[string]bool{}
	for _, dir := range []string{"api", "client", "cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(env.root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
				defined[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := 0
	for _, page := range pages(t) {
		for _, m := range testName.FindAllStringSubmatch(read(t, page), -1) {
			named++
			if !defined[m[1]] {
				t.Errorf("%s: there is no test %s", page, m[1])
			}
		}
	}
	if named == 0 {
		t.Error("no page names a test: are they found?")
	}
}

// TestReached: the README, or a page it leads to, leads to every page.
func TestReached(t *testing.T) {
	reached := map[string]bool{}
	var follow func(page string)
	follow = func(page string) {
		if reached[page] || !strings.HasSuffix(page, ".md") {
			return
		}
		reached[page] = true
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			to, _, _ := strings.Cut(m[1], "#")
			if to != "" && !strings.Contains(to, "://") {
				follow(filepath.Join(filepath.Dir(page), to))
			}
		}
	}
	follow("README.md")
	for _, page := range pages(t) {
		if !reached[page] {
			t.Errorf("no link leads to %s", page)
		}
	}
}
