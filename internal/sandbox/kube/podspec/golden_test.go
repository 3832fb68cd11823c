package podspec_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

var update = flag.Bool("update", false, "rewrite golden files")

// settings are those of these tests.
func settings() podspec.Settings {
	return podspec.Settings{
		AgentImage: "registry.test/picod:1", AgentPullPolicy: corev1.PullIfNotPresent, Home: "agentcube-system",
		PullSecrets: []corev1.LocalObjectReference{{Name: "agentcube"}},
	}
}

func newBuilder(t *testing.T) *podspec.Builder {
	t.Helper()
	b, err := podspec.NewBuilder(settings())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// specOf is what a manifest says, as the Workload Manager hands it to the driver.
func specOf(t *testing.T, manifest string) sandbox.Spec {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict([]byte(manifest), &u.Object); err != nil {
		t.Fatal(err)
	}
	tmpl, err := kubetemplate.Of(u, "registry.test/default:1")
	if err != nil {
		t.Fatal(err)
	}
	return tmpl.Spec("-----BEGIN PUBLIC KEY-----")
}

// TestGolden: for each manifest in testdata the whole Pod, so that whoever changes one
// sees what it means for all.
func TestGolden(t *testing.T) {
	manifests, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("%d manifests, %v", len(manifests), err)
	}
	for _, file := range manifests {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			manifest, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := newBuilder(t).Build(specOf(t, string(manifest)))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", got)
		})
	}
}

func TestPoliciesGolden(t *testing.T) {
	callers := podspec.Callers{Namespace: "agentcube-system", Labels: map[string]string{"app.kubernetes.io/part-of": "agentcube"}}
	golden(t, "testdata/policies.golden", podspec.Policies("team", callers.Namespace, callers))
}

func golden(t *testing.T, file string, got any) {
	t.Helper()
	text, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("differs from %s; -update accepts it (-want +got):\n%s", file, diff)
	}
}
