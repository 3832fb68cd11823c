package template_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	kyaml "sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/internal/template"
)

// resourceOf is a CodeInterpreter as an API server has it, with more in its template.
func resourceOf(more string) string {
	return `{"apiVersion":"runtime.agentcube.volcano.sh/v1alpha1","kind":"CodeInterpreter","metadata":{"name":"a","namespace":"b"},` +
		`"spec":{"template":{"image":"x"` + more + `}}}`
}

// TestParseResource: what Kubernetes alone has, and what YAML would stumble over.
func TestParseResource(t *testing.T) {
	for name, more := range map[string]string{
		"device":             `,"resources":{"limits":{"nvidia.com/gpu":"1"}}`,
		"claim":              `,"resources":{"claims":[{"name":"c"}]}`,
		"number for amount":  `,"resources":{"limits":{"cpu":0.5,"memory":1e9}}`,
		"value from":         `,"environment":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]`,
		"reference":          `,"environment":[{"name":"A","value":"b"}],"args":["--workspace=/w/$(A)"]`,
		"read-only root":     `,"readOnlyRootFilesystem":true`,
		"null":               `,"labels":null`,
		"delete character":   `,"annotations":{"a":"` + "\x7f" + `"}`,
		"control characters": `,"annotations":{"a":"\u0085\u009f\ufffe\ufeff\u2028\ud83d\ude00"}`,
		"words":              `,"annotations":{"yes":"no","~":"null","<<":"*a","2026-11-25":"1e3"}`,
		"long name":          `,"annotations":{"` + strings.Repeat("a", 2000) + `":"v"}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := template.ParseResource([]byte(resourceOf(more)), "")
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != "a" || got.Namespace != "b" || got.Image != "x" || got.Origin != "CodeInterpreter b/a" || got.Env != nil {
				t.Errorf("template is %+v", got)
			}
		})
	}
}

func TestParseResourceRefuses(t *testing.T) {
	for name, test := range map[string]struct{ data, want string }{
		"nothing":       {"", "is not a resource"},
		"YAML":          {"kind: CodeInterpreter", "is not a resource"},
		"two":           {resourceOf("") + resourceOf(""), "is not a resource"},
		"a list":        {"[]", "must be a resource"},
		"null":          {"null", "must be a resource"},
		"another kind":  {`{"apiVersion":"runtime.agentcube.volcano.sh/v1alpha1","kind":"Pod"}`, "must be CodeInterpreter or AgentRuntime"},
		"unknown field": {resourceOf(`,"imagee":"y"`), `did you mean "image"?`},
		"wrong type":    {resourceOf(`,"args":"--workspace=/"`), "must be a list"},
		"text for bool": {resourceOf(`,"runAsRoot":"true"`), "must be true or false"},
		"half a port":   {strings.Replace(resourceOf(""), `"spec":{`, `"spec":{"ports":[{"port":80.5}],`, 1), "must be a whole number"},
		"amount":        {resourceOf(`,"resources":{"limits":{"memory":"much"}}`), "must be a quantity"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := template.ParseResource([]byte(test.data), "")
			var problems template.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want Problems that say %q", err, test.want)
			}
		})
	}
}

// TestParseAgrees: a file and the resource that it becomes are the same template, where
// one machine can have it.
func TestParseAgrees(t *testing.T) {
	for _, file := range []string{"testdata/agentruntime.yaml", "shipped/simple-codeinterpreter.yaml", "shipped/my-interpreter.yaml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range strings.Split(string(data), "\n---\n") {
			local, err := template.Parse(file, []byte(document), "image")
			if err != nil {
				t.Fatal(err)
			}
			asJSON, err := kyaml.YAMLToJSON([]byte(document))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range local {
				got, err := template.ParseResource(asJSON, "image")
				if err != nil {
					t.Fatal(err)
				}
				want.Env, want.Origin = nil, got.Origin
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: resource is %+v, file is %+v", file, got, want)
				}
			}
		}
	}
}

func FuzzParseResource(f *testing.F) {
	f.Add([]byte(resourceOf("")))
	for _, glob := range []string{"testdata/*.yaml", "testdata/bad/*.yaml", "shipped/*.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			for document := range strings.SplitSeq(string(data), "\n---\n") {
				if asJSON, err := kyaml.YAMLToJSON([]byte(document)); err == nil {
					f.Add(asJSON)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := template.ParseResource(data, "")
		if err != nil {
			var problems template.Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		r := got.Resources
		if got.Name == "" || got.Namespace == "" || got.Image == "" || len(got.Ports) == 0 || got.Workspace == "" || got.Env != nil ||
			got.IdleTimeout <= 0 || got.MaxDuration <= 0 || r.CPUMillis <= 0 || r.MemoryBytes <= 0 || r.DiskBytes <= 0 || r.Processes <= 0 {
			t.Errorf("accepted without all that a template has: %+v", got)
		}
		// What is accepted does not depend on how it is written.
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		var value any
		if err := dec.Decode(&value); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		indented, err := json.MarshalIndent(value, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		again, err := template.ParseResource(indented, "")
		if err != nil || again.Name != got.Name || again.Image != got.Image {
			t.Errorf("the same again is %+v, %v, want %+v", again, err, got)
		}
	})
}
