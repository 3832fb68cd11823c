package template_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/template"
)

func TestNotFound(t *testing.T) {
	var all []template.Template
	for _, ref := range []string{
		"CodeInterpreter default/simple-codeinterpreter", "CodeInterpreter default/my-interpreter",
		"CodeInterpreter team/my-interpreter", "CodeInterpreter default/python", "CodeInterpreter default/data-science-gpu",
		"CodeInterpreter default/z", "AgentRuntime default/weather",
	} {
		kind, ref, _ := strings.Cut(ref, " ")
		namespace, name, _ := strings.Cut(ref, "/")
		all = append(all, template.Template{Kind: kind, Namespace: namespace, Name: name})
	}
	source := template.NewSet(all...)
	tests := []struct {
		kind, namespace, name string
		text                  string
		near                  []string
		hint                  string
	}{
		{"CodeInterpreter", "default", "simple-codeinterpeter", `codeinterpreters.agentcube.volcano.sh "default/simple-codeinterpeter" not found`,
			[]string{"default/simple-codeinterpreter"}, "did you mean default/simple-codeinterpreter?"},
		{"CodeInterpreter", "default", "my-interpretre", "", []string{"default/my-interpreter", "team/my-interpreter"}, "did you mean"},
		{"CodeInterpreter", "nowhere", "python", "", []string{"default/python"}, "default/python"},
		{"CodeInterpreter", "default", "pyhton", "", []string{"default/python"}, ""},
		{"CodeInterpreter", "default", "data", "", []string{"default/data-science-gpu"}, ""},
		{"CodeInterpreter", "default", "something-else-entirely", "", nil, "template ls"},
		{"CodeInterpreter", "default", strings.Repeat("x", 1_000_000), "", nil, ""},
		{"CodeInterpreter", "default", "weather", "", nil, "default/weather is of kind AgentRuntime"},
		{"AgentRuntime", "default", "wether", `agentruntimes.agentcube.volcano.sh "default/wether" not found`, []string{"default/weather"}, ""},
		{"AgentRuntime", "default", "nothing-like-it", "", []string{"default/weather"}, "default/weather"},
	}
	for _, test := range tests {
		_, err := source.Get(test.kind, test.namespace, test.name)
		var missing *template.NotFoundError
		if !errors.As(err, &missing) {
			t.Fatalf("Get(%.40s): %v, want a *NotFoundError", test.name, err)
		}
		if diff := cmp.Diff(test.near, missing.Near); diff != "" {
			t.Errorf("%.40s: near names (-want +got):\n%s", test.name, diff)
		}
		if test.text != "" && err.Error() != test.text {
			t.Errorf("error %q, want %q", err, test.text)
		}
		if hint := missing.Hint(); !strings.Contains(hint, test.hint) {
			t.Errorf("%.40s: hint %q, want %q in it", test.name, hint, test.hint)
		}
	}
	_, err := template.NewSet().Get("CodeInterpreter", "default", "a")
	if err == nil || !strings.Contains(err.Error(), `"default/a" not found`) {
		t.Errorf("no templates at all: %v", err)
	}
}

// What Get and List return belongs to the caller.
func TestSetIsNotShared(t *testing.T) {
	source := template.NewSet(template.Template{
		Kind: "CodeInterpreter", Name: "a", Args: []string{"x"}, Env: map[string]string{"A": "1"}, Ports: []template.Port{{Port: 1}},
	})
	want := source.List()
	got, err := source.Get("CodeInterpreter", "", "a")
	if err != nil {
		t.Fatal(err)
	}
	got.Args[0], got.Env["A"], got.Ports[0].Port = "y", "2", 2
	if diff := cmp.Diff(want, source.List()); diff != "" {
		t.Errorf("the set changed (-want +got):\n%s", diff)
	}
}
