package docs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// block is one fenced block of a page.
type block struct {
	page string // path from the repository's root
	line int    // of the fence
	lang string
	text string
}

func (b block) where() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// blocks finds the fenced blocks of a page.
func blocks(page, text string) ([]block, error) {
	var out []block
	var open *block
	for i, line := range strings.SplitAfter(text, "\n") {
		info, fence := strings.CutPrefix(strings.TrimRight(line, " \n"), "```")
		switch {
		case fence && open == nil:
			lang, _, _ := strings.Cut(info, " ")
			open = &block{page: page, line: i + 1, lang: lang}
		case fence && info == "":
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block has no end", open.where())
	}
	return out, nil
}

// step is one command of a transcript and what it shall print.
type step struct{ command, output string }

// transcript reads a block of "$ " lines; nil when there are none.
func transcript(text string) []step {
	var out []step
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			out = append(out, step{command: command})
			continue
		}
		if len(out) == 0 {
			return nil
		}
		last := &out[len(out)-1]
		if more, ok := strings.CutPrefix(line, "> "); ok && last.output == "" {
			last.command += more
		} else {
			last.output += line
		}
	}
	return out
}

const mark = "\x1e" // between the outputs of commands

// script runs the steps in one shell, and marks the end of each.
func script(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%s\nprintf '\\036%%d\\036' $?\n", s.command)
	}
	return b.String()
}

// outcomes cuts the output of a script into those of its steps.
func outcomes(output string, steps int) (texts []string, codes []int, err error) {
	parts := strings.Split(output, mark)
	if len(parts) != 2*steps+1 {
		return nil, nil, fmt.Errorf("only %d of %d commands ended:\n%s", len(parts)/2, steps, output)
	}
	for i := range steps {
		code, err := strconv.Atoi(parts[2*i+1])
		if err != nil {
			return nil, nil, fmt.Errorf("read exit code: %w", err)
		}
		texts, codes = append(texts, parts[2*i]), append(codes, code)
	}
	return texts, codes, nil
}

// What differs from run to run, and what is put in its place on both sides.
var varying = []struct {
	pattern *regexp.Regexp
	place   string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?`), "TIME"},
	{regexp.MustCompile(`sha256:[0-9a-f]{12,64}`), "DIGEST"},
	{regexp.MustCompile(`\b\d+ ms\b`), "DURATION"},
	{regexp.MustCompile(`\bnow\b|\b(\d+|a) (second|minute|hour)s? (ago|from now)`), "AGO"},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

func normal(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.place)
	}
	return strings.TrimRight(text, "\n") + "\n"
}

// matches compares an output with what the page shows.
func matches(want, got string) bool {
	var pattern strings.Builder
	for line := range strings.Lines(normal(want)) {
		if line == "...\n" {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`))
	}
	return regexp.MustCompile(`^` + pattern.String() + `$`).MatchString(normal(got))
}

func TestMatches(t *testing.T) {
	tests := []struct {
		want, got string
		ok        bool
	}{
		{"", "", true},
		{"", "x\n", false},
		{"a\n", "a\n\n", true},
		{"a\n", "a\nb\n", false},
		{"a\n...\n", "a\nb\nc\n", true},
		{"a\n...\nc\n", "a\nc\n", true},
		{"a\n...\nc\n", "a\nb\nd\n", false},
		{"took ... s\n", "took 1.5 s\n", true},
		{"took ... s\n", "took 1.5 m\n", false},
		{"a.c\n", "abc\n", false},
		{"id 2fa34b4e-868e-42e0-a736-213c1dc8b43c  x\n", "id b23c0ab3-6f3f-47c1-828a-a71c42bfd106 x\n", true},
		{"after 0 ms\n", "after 12 ms\n", true},
	}
	for _, test := range tests {
		if got := matches(test.want, test.got); got != test.ok {
			t.Errorf("%q and %q: %v, want %v", test.want, test.got, got, test.ok)
		}
	}
}

func TestBlocks(t *testing.T) {
	const page = "text\n```sh\n$ a \\\n> b\nout\n\nmore\n$ c\n```\n```python\nx\n```\n```\nplain\n```\n"
	got, err := blocks("p.md", page)
	if err != nil || len(got) != 3 || got[0].where() != "p.md:2" || got[1] != (block{"p.md", 10, "python", "x\n"}) || got[2].lang != "" {
		t.Fatalf("got %+v, %v", got, err)
	}
	steps := transcript(got[0].text)
	if len(steps) != 2 || steps[0] != (step{"a \\\nb\n", "out\n\nmore\n"}) || steps[1] != (step{"c\n", ""}) {
		t.Errorf("steps %+v", steps)
	}
	if _, err := blocks("p.md", "```sh\n"); err == nil {
		t.Error("a block without an end was taken")
	}
	texts, codes, err := outcomes("a"+mark+"0"+mark+mark+"3"+mark, 2)
	if err != nil || texts[0] != "a" || texts[1] != "" || codes[0] != 0 || codes[1] != 3 {
		t.Errorf("outcomes %q, %d, %v", texts, codes, err)
	}
	if _, _, err := outcomes("a"+mark+"0"+mark, 2); err == nil {
		t.Error("a script that broke off was taken")
	}
}
