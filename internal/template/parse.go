package template

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

// MaxFileBytes bounds a template file.
const MaxFileBytes = 1 << 20

// Parse reads the CodeInterpreter and AgentRuntime resources of a YAML or JSON
// file of one or more documents, for use on a single machine. file is its name
// for messages; defaultImage is the image of a CodeInterpreter that names none.
//
// Reading is strict: unknown fields, wrong types, missing and impossible values
// are refused, and so is what only Kubernetes can provide, such as volumes.
// Fields that only say where and how Kubernetes runs a Pod are accepted without
// effect. When anything is wrong, no template is returned, and the error is of
// type Problems and lists every mistake of the file.
func Parse(file string, data []byte, defaultImage string) ([]Template, error) {
	if len(data) > MaxFileBytes {
		return nil, Problems{{File: file, Text: fmt.Sprintf("is larger than %d bytes", MaxFileBytes)}}
	}
	var templates []Template
	var problems Problems
	lines := map[key]int{}
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			problems = append(problems, syntaxProblem(file, err))
			break
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue
		}
		t, found := parseDocument(file, doc.Content[0], resolver{defaultImage: defaultImage})
		line := doc.Content[0].Line
		if first, twice := lines[t.key()]; twice && t.Name != "" {
			found = append([]Problem{{File: file, Line: line, Field: "metadata.name",
				Text: fmt.Sprintf("%s is already defined at line %d", t.key(), first)}}, found...)
		}
		lines[t.key()] = line
		problems = append(problems, found...)
		templates = append(templates, t)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return templates, nil
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxProblem(file string, err error) Problem {
	p := Problem{File: file, Text: err.Error()}
	if m := syntaxLine.FindStringSubmatch(p.Text); m != nil {
		p.Line, _ = strconv.Atoi(m[1]) // no digits: the line stays unknown
		p.Text = "not valid YAML: " + strings.TrimPrefix(p.Text, m[0])
	}
	return p
}

// parseDocument reads one resource. It returns what could be read of it
// together with the mistakes.
func parseDocument(file string, n *yaml.Node, r resolver) (Template, []Problem) {
	d := newDecoder(file)
	d.last = n.Line
	if n.Kind != yaml.MappingNode {
		d.at(n, "", "must be a resource, is %s", describe(n))
		return Template{}, d.sorted()
	}
	apiVersion, kind := topLevel(n, "apiVersion"), topLevel(n, "kind")
	if want := v1alpha1.GroupVersion.String(); apiVersion != want {
		d.lines["apiVersion"] = lineOf(n, "apiVersion")
		d.bad("apiVersion", "must be %s, is %q", want, apiVersion)
	}
	r.decoder = d
	var t Template
	switch kind {
	case api.KindCodeInterpreter:
		var ci v1alpha1.CodeInterpreter
		d.value(n, "", reflect.ValueOf(&ci).Elem())
		t = r.codeInterpreter(&ci)
	case api.KindAgentRuntime:
		var ar v1alpha1.AgentRuntime
		d.value(n, "", reflect.ValueOf(&ar).Elem())
		t = r.agentRuntime(&ar)
	default:
		d.lines["kind"] = lineOf(n, "kind")
		d.bad("kind", "must be %s or %s, is %q", api.KindCodeInterpreter, api.KindAgentRuntime, kind)
	}
	t.Kind = kind
	t.Origin = fmt.Sprintf("%s:%d", file, n.Line)
	return t, d.sorted()
}

// topLevel returns the text of a key of a mapping, or "".
func topLevel(n *yaml.Node, name string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1].Value
		}
	}
	return ""
}

func lineOf(n *yaml.Node, name string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i].Line
		}
	}
	return n.Line
}
