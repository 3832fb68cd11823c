package crd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

// manifests are the documents that must be taken as they are: those of earlier
// versions, those inside the binary, and those that the documentation shows.
func manifests(t *testing.T) map[string]string {
	t.Helper()
	const root = "../../../"
	out := map[string]string{}
	for _, pattern := range []string{"api/v1alpha1/testdata/*.yaml", "internal/template/shipped/*.yaml", "internal/template/testdata/*.yaml", "docs/templates.md"} {
		files, err := filepath.Glob(root + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts := []string{string(data)}
			if strings.HasSuffix(file, ".md") {
				texts = blocks(texts[0])
			}
			for i, document := range strings.Split(strings.Join(texts, "\n---\n"), "\n---\n") {
				out[fmt.Sprintf("%s %d", strings.TrimPrefix(file, root), i+1)] = document
			}
		}
	}
	return out
}

// blocks are the blocks of YAML in a text.
func blocks(markdown string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(markdown, -1) {
		out = append(out, m[1])
	}
	return out
}

// TestManifests: they are taken, with nothing dropped from their spec, and the Go
// types read what comes back.
func TestManifests(t *testing.T) {
	all := manifests(t)
	if len(all) < 8 {
		t.Errorf("there are only %d", len(all))
	}
	types := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(types); err != nil {
		t.Fatal(err)
	}
	for name, text := range all {
		t.Run(name, func(t *testing.T) {
			sent, err := object(text)
			if err != nil {
				t.Fatal(err)
			}
			kept := create(t, text)
			for _, lost := range missing("spec", sent.Object["spec"], kept.Object["spec"]) {
				t.Error(lost)
			}
			typed, err := types.New(kept.GroupVersionKind())
			if err != nil {
				t.Fatal(err)
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(kept.Object, typed, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// missing names what is in sent and not, or otherwise, in kept.
func missing(at string, sent, kept any) (out []string) {
	switch sent := sent.(type) {
	case map[string]any:
		there, _ := kept.(map[string]any)
		for name, value := range sent {
			out = append(out, missing(at+"."+name, value, there[name])...)
		}
	case []any:
		there, _ := kept.([]any)
		for i, value := range sent {
			if i >= len(there) {
				return append(out, fmt.Sprintf("%s[%d] is lost", at, i))
			}
			out = append(out, missing(fmt.Sprintf("%s[%d]", at, i), value, there[i])...)
		}
	default:
		if diff := cmp.Diff(sent, kept); diff != "" {
			out = append(out, fmt.Sprintf("%s (-sent +kept):\n%s", at, diff))
		}
	}
	return out
}

// TestDefaults: what is left out has the documented value, and nothing else is
// filled in.
func TestDefaults(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{head("CodeInterpreter") + "spec: {template: {}}",
			"spec: {template: {}, sessionTimeout: 15m, maxSessionDuration: 8h, authMode: picod}"},
		{head("CodeInterpreter") + "spec: {template: {}, sessionTimeout: null, authMode: null, pauseAfter: null, ports: [{port: 1}]}",
			"spec: {template: {}, sessionTimeout: 15m, maxSessionDuration: 8h, authMode: picod, ports: [{port: 1, protocol: HTTP}]}"},
		{head("AgentRuntime") + "spec: {targetPort: [{port: 1}], podTemplate: {spec: {containers: [{name: c, image: x}]}}}",
			"spec: {targetPort: [{port: 1, protocol: HTTP}], podTemplate: {spec: {containers: [{name: c, image: x}]}}, sessionTimeout: 15m, maxSessionDuration: 8h}"},
	} {
		got, err := submit(t, test.text)
		if err != nil {
			t.Error(err)
			continue
		}
		want, err := object(head(got.GetKind()) + test.want)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Object["spec"], got.Object["spec"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
	}
}

// head is the beginning of a document.
func head(kind string) string {
	return "apiVersion: " + v1alpha1.GroupVersion.String() + "\nkind: " + kind + "\nmetadata: {name: a}\n"
}

// TestScheme: the types can be added to those that clients know, and read lists.
func TestScheme(t *testing.T) {
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(types); err != nil {
			t.Fatal(err)
		}
	}
	create(t, head("CodeInterpreter")+"spec: {template: {image: x}}")
	list, err := resource(&unstructured.Unstructured{Object: map[string]any{"kind": "CodeInterpreter"}}).List(t.Context(), everything())
	if err != nil {
		t.Fatal(err)
	}
	var typed v1alpha1.CodeInterpreterList
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(list.UnstructuredContent(), &typed, true); err != nil {
		t.Fatal(err)
	}
	if len(typed.Items) != 1 || typed.Items[0].Spec.Template.Image != "x" {
		t.Errorf("the list is %+v", typed)
	}
}
