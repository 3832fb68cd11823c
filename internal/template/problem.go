package template

import (
	"fmt"
	"strings"
)

// Problem is one mistake in a template file.
type Problem struct {
	File  string `json:"file"`
	Line  int    `json:"line"`            // counted from 1; 0 when it concerns the whole file
	Field string `json:"field,omitempty"` // such as spec.template.environment[0].name
	Text  string `json:"problem"`
}

// String is "file:line: field: text".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Field != "" {
		b.WriteString(": " + p.Field)
	}
	return b.String() + ": " + p.Text
}

// Problems are all mistakes of a file, as an error.
type Problems []Problem

// Error implements error: one problem per line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}
