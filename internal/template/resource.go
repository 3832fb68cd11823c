package template

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseResource reads one resource as an API server has it, in JSON, for use on
// Kubernetes: what only that can provide is accepted, for others to put into the Pod,
// and so is a command that is the image's. Env is empty, as Kubernetes gives it to the
// container. Errors are Problems.
func ParseResource(data []byte, defaultImage string) (Template, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil || dec.More() {
		return Template{}, Problems{{Text: "is not a resource"}}
	}
	t, problems := parseDocument("", node(value), resolver{defaultImage: defaultImage, kubernetes: true})
	t.Origin = t.key().String()
	if len(problems) == 0 {
		return t, nil
	}
	for i := range problems { // the lines are nobody's
		problems[i].File, problems[i].Line = t.Origin, 0
	}
	return t, Problems(problems)
}

// node is a JSON value as the decoder reads it. YAML would read most JSON, and not all:
// it wants no control characters in texts.
func node(value any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: 1}
	switch v := value.(type) {
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case bool:
		n.Tag, n.Value = "!!bool", map[bool]string{false: "false", true: "true"}[v]
	case json.Number:
		n.Tag, n.Value = "!!int", v.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case string:
		n.Tag, n.Value = "!!str", v
	case []any:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		for _, item := range v {
			n.Content = append(n.Content, node(item))
		}
	case map[string]any:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		for _, name := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, node(name), node(v[name]))
		}
	}
	return n
}
