package template

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// maxNodes bounds what one document may unfold to: an alias can stand for
	// a large part of a document, many times over.
	maxNodes = 50_000
	// maxProblems bounds how many mistakes of one document are told.
	maxProblems = 50
)

// decoder fills Go values from one YAML document. It goes on after a mistake,
// leaving that field zero, so that all mistakes are found in one go.
type decoder struct {
	file     string
	problems []Problem
	lost     []string       // fields whose value could not be taken over
	lines    map[string]int // line of each field that is there
	last     int            // line of the document's first node
	nodes    int
}

func newDecoder(file string) *decoder { return &decoder{file: file, lines: map[string]int{}} }

// bad records a mistake in a field, at its line or that of the nearest field
// around it. What follows from a mistake already recorded is left out.
func (d *decoder) bad(path, format string, args ...any) {
	if path == "" || !d.follows(path) {
		d.record(d.line(path), path, fmt.Sprintf(format, args...))
	}
}

func (d *decoder) follows(path string) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Field == path || within(p.Field, path) }) ||
		slices.ContainsFunc(d.lost, func(lost string) bool { return within(path, lost) })
}

func (d *decoder) record(line int, path, text string) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{File: d.file, Line: line, Field: path, Text: text})
	}
}

// within reports whether the field inner is inside outer.
func within(inner, outer string) bool {
	rest, ok := strings.CutPrefix(inner, outer)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

func (d *decoder) line(path string) int {
	for path != "" {
		if line, ok := d.lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return d.last
}

// at records a mistake at a node, whose value is not taken over.
func (d *decoder) at(n *yaml.Node, path, format string, args ...any) {
	d.record(n.Line, path, fmt.Sprintf(format, args...))
	if path != "" {
		d.lost = append(d.lost, path)
	}
}

// sorted returns the mistakes in the order of the file; of a document that was
// too large to be read, that alone.
func (d *decoder) sorted() []Problem {
	if d.nodes > maxNodes {
		return []Problem{{File: d.file, Line: d.last, Text: fmt.Sprintf("the document is too large: more than %d values", maxNodes)}}
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Field, b.Field), strings.Compare(a.Text, b.Text))
	})
	if len(d.problems) == maxProblems {
		d.problems = append(d.problems, Problem{File: d.file, Line: d.last, Text: "there are more problems than these"})
	}
	return d.problems
}

// value decodes n into v.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value) {
	if d.nodes++; d.nodes > maxNodes {
		return // sorted says so
	}
	if path != "" {
		d.lines[path] = n.Line
	}
	if n.Kind == yaml.AliasNode {
		d.value(n.Alias, path, v)
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // as on Kubernetes: a null is a field that is not there
	}
	if v.Addr().Type().Implements(reflect.TypeFor[json.Unmarshaler]()) {
		d.custom(n, path, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, path, v.Elem())
	case reflect.Struct:
		d.object(n, path, v)
	case reflect.Map:
		d.mapping(n, path, v)
	case reflect.Slice:
		d.sequence(n, path, v)
	default:
		d.scalar(n, path, v)
	}
}

func (d *decoder) object(n *yaml.Node, path string, v reflect.Value) {
	fields := map[string]reflect.Value{}
	jsonFields(v, fields)
	d.pairs(n, path, func(k, val *yaml.Node, sub string) {
		field, ok := fields[k.Value]
		if !ok {
			d.at(k, sub, "there is no such field%s", similar(k.Value, fields))
			return
		}
		d.value(val, sub, field)
		d.lines[sub] = k.Line
	})
}

func (d *decoder) mapping(n *yaml.Node, path string, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(k, val *yaml.Node, sub string) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(val, sub, elem)
		v.SetMapIndex(reflect.ValueOf(k.Value).Convert(v.Type().Key()), elem)
	})
}

// pairs calls each with the keys and values of a mapping.
func (d *decoder) pairs(n *yaml.Node, path string, each func(k, v *yaml.Node, sub string)) {
	if n.Kind != yaml.MappingNode {
		d.at(n, path, "must be a mapping, is %s", describe(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		sub := k.Value
		if path != "" {
			sub = path + "." + k.Value
		}
		switch {
		case k.Tag == "!!merge":
			d.at(k, path, "YAML merge keys (<<) are not supported")
		case k.Kind != yaml.ScalarNode:
			d.at(k, path, "a key must be plain text")
		case seen[k.Value]:
			d.at(k, sub, "is there twice")
		default:
			seen[k.Value] = true
			each(k, n.Content[i+1], sub)
		}
	}
}

func (d *decoder) sequence(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.at(n, path, "must be a list, is %s", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.value(item, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
	}
}

func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value) {
	want := map[reflect.Kind]string{
		reflect.String: "text", reflect.Bool: "true or false", reflect.Float64: "a number",
		reflect.Int: "a whole number", reflect.Int32: "a whole number", reflect.Int64: "a whole number",
	}[v.Kind()]
	isText := n.Tag == "!!str" || n.Tag == "!!timestamp"
	switch {
	case n.Kind != yaml.ScalarNode || isText != (v.Kind() == reflect.String):
		quote := ""
		if v.Kind() == reflect.String && n.Kind == yaml.ScalarNode {
			quote = fmt.Sprintf(": write %q", n.Value)
		}
		d.at(n, path, "must be %s, is %s%s", want, describe(n), quote)
	case isText:
		v.SetString(n.Value)
	case v.CanInt() && n.Tag != "!!int", n.Decode(v.Addr().Interface()) != nil:
		d.at(n, path, "must be %s, is %s", want, describe(n))
	}
}

// custom decodes types that have a JSON form of their own.
func (d *decoder) custom(n *yaml.Node, path string, v reflect.Value) {
	var plain any
	if err := n.Decode(&plain); err != nil {
		d.at(n, path, "is not valid: %v", err)
		return
	}
	text, err := json.Marshal(plain)
	if err == nil {
		err = json.Unmarshal(text, v.Addr().Interface())
	}
	if err == nil {
		return
	}
	v.SetZero()
	switch v.Interface().(type) {
	case metav1.Duration:
		d.at(n, path, "must be a duration such as 90s, 15m or 8h, is %s", describe(n))
	case resource.Quantity:
		d.at(n, path, "must be a quantity such as 500m, 2 or 512Mi, is %s", describe(n))
	default:
		d.at(n, path, "is not valid: %s", describe(n))
	}
}

// jsonFields collects the fields of a struct by their JSON names, those of
// embedded structs without a name among them.
func jsonFields(v reflect.Value, fields map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous && f.Type.Kind() == reflect.Struct:
			jsonFields(v.Field(i), fields)
		case name != "":
			fields[name] = v.Field(i)
		}
	}
}

// similar suggests the field that was probably meant.
func similar(name string, fields map[string]reflect.Value) string {
	best, distance := "", 3
	for f := range fields {
		switch n := editDistance(strings.ToLower(name), strings.ToLower(f)); {
		case n < distance, n == distance && best != "" && f < best:
			best, distance = f, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// describe says what a node is, with its value when that is short.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	value := n.Value
	if len(value) > 40 {
		value = value[:40] + "..."
	}
	switch n.Tag {
	case "!!bool":
		return "the truth value " + value
	case "!!int", "!!float":
		return "the number " + value
	}
	return fmt.Sprintf("the text %q", value)
}
