package docs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// pages are all pages for users, from the repository's root.
func pages(t *testing.T) []string {
	t.Helper()
	out := []string{"README.md", "CONTRIBUTING.md", "sdk/python/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(env.root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			out = append(out, strings.TrimPrefix(path, env.root+"/"))
		}
	}
	return out
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(env.root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPages executes what the pages show.
func TestPages(t *testing.T) {
	runners := map[string]func(*testing.T, string, block){"sh": runShell, "python": runPython, "yaml": runYAML}
	ran := map[string]int{}
	for _, page := range pages(t) {
		all, err := blocks(page, read(t, page))
		if err != nil {
			t.Error(err)
			continue
		}
		dir := t.TempDir()
		for _, b := range all {
			if runner := runners[b.lang]; runner != nil {
				ran[b.lang]++
				t.Run(fmt.Sprintf("%s/line_%d", page, b.line), func(t *testing.T) { runner(t, dir, b) })
			}
		}
	}
	for lang := range runners {
		if ran[lang] == 0 {
			t.Errorf("no page has a %s block: are they found?", lang)
		}
	}
}

// command runs a program in dir and returns what it wrote to both outputs.
func command(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env.environ(), &out, &out
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	return out.String(), err
}

func runShell(t *testing.T, dir string, b block) {
	steps := transcript(b.text)
	if steps == nil {
		if out, err := command(t, dir, "bash", "-euo", "pipefail", "-c", b.text); err != nil {
			t.Errorf("%s: %v\n%s", b.where(), err, out)
		}
		return
	}
	out, err := command(t, dir, "bash", "-c", script(steps))
	if err != nil {
		t.Fatalf("%s: %v\n%s", b.where(), err, out)
	}
	texts, codes, err := outcomes(out, len(steps))
	if err != nil {
		t.Fatalf("%s: %v", b.where(), err)
	}
	for i, s := range steps {
		if codes[i] != 0 {
			t.Errorf("%s: exit code %d of: %s%s", b.where(), codes[i], s.command, texts[i])
		} else if !matches(s.output, texts[i]) {
			t.Errorf("%s: %sprinted\n%s\nbut the page shows\n%s", b.where(), s.command, texts[i], s.output)
		}
	}
}

func runPython(t *testing.T, dir string, b block) {
	if out, err := command(t, dir, env.python, "-W", "error", "-c", b.text); err != nil {
		t.Errorf("%s: %v\n%s", b.where(), err, out)
	}
}

var (
	kindLine      = regexp.MustCompile(`(?m)^kind: (CodeInterpreter|AgentRuntime)$`)
	nameLine      = regexp.MustCompile(`(?m)^  name: (\S+)$`)
	namespaceLine = regexp.MustCompile(`(?m)^  namespace: (\S+)$`)
	withoutPicoD  = regexp.MustCompile(`(?m)^  authMode: none$|^kind: AgentRuntime$`)
)

func runYAML(t *testing.T, dir string, b block) {
	file := filepath.Join(dir, fmt.Sprintf("line-%d.yaml", b.line))
	if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	if !kindLine.MatchString(b.text) {
		if out, err := command(t, dir, env.bin, "config", "print", "--config", file); err != nil {
			t.Errorf("%s: %v\n%s", b.where(), err, out)
		}
		return
	}
	if out, err := command(t, dir, env.bin, "template", "check", file); err != nil {
		t.Fatalf("%s: %v\n%s", b.where(), err, out)
	}
	served := filepath.Join(env.path("t"), fmt.Sprintf("%s-%d.yaml", strings.ReplaceAll(b.page, "/", "-"), b.line))
	if err := os.WriteFile(served, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	name, namespace := nameLine.FindStringSubmatch(b.text), namespaceLine.FindStringSubmatch(b.text)
	if name == nil {
		t.Fatalf("%s: the template has no name", b.where())
	}
	if namespace == nil {
		namespace = []string{"", "default"}
	}
	if !withoutPicoD.MatchString(b.text) {
		useTemplate(t, b, namespace[1]+"/"+name[1])
	}
}

// useTemplate runs a command in a session of a template that the server is about
// to notice.
func useTemplate(t *testing.T, b block, template string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := command(t, env.dir, env.bin, "run", "--template", template, "--", "true")
		if err == nil {
			return
		}
		if !strings.Contains(out, "TEMPLATE_NOT_FOUND") || time.Now().After(deadline) {
			t.Fatalf("%s: use template %s: %v\n%s", b.where(), template, err, out)
		}
	}
}
