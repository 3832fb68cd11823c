package v1alpha1_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

// A manifest survives being read strictly and written again. Those in testdata have
// the names that manifests of earlier versions use; they never change.
func TestManifests(t *testing.T) {
	for name, test := range map[string]struct {
		file     string
		resource any
	}{
		"CodeInterpreter": {"codeinterpreter.yaml", &v1alpha1.CodeInterpreter{}},
		"AgentRuntime":    {"agentruntime.yaml", &v1alpha1.AgentRuntime{}},
	} {
		t.Run(name, func(t *testing.T) {
			manifest, err := os.ReadFile(filepath.Join("testdata", test.file))
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict(manifest, test.resource); err != nil {
				t.Fatal(err)
			}
			written, err := yaml.Marshal(test.resource)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(generic(t, manifest), generic(t, written)); diff != "" {
				t.Errorf("(-read +written):\n%s", diff)
			}
		})
	}
}

// generic decodes YAML without the types, leaving out the time that is always null.
func generic(t *testing.T, text []byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if metadata, ok := out["metadata"].(map[string]any); ok {
		delete(metadata, "creationTimestamp")
	}
	return out
}
