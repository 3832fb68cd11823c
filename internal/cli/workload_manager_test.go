package cli

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestPods: what is set about the image that PicoD comes from is so in all Pods.
func TestPods(t *testing.T) {
	cfg := config.New([]string{
		"AGENTCUBE_NAMESPACE=home", "AGENTCUBE_AGENT_IMAGE=registry.example/agentcube:1", "AGENTCUBE_AGENT_IMAGE_PULL_POLICY=Always",
		"AGENTCUBE_AGENT_IMAGE_PULL_SECRETS=registry,mirror",
	})
	if err := cfg.Load(); err != nil {
		t.Fatal(err)
	}
	got := (&workloadManager{member: &member{cfg: cfg}}).pods()
	want := podspec.Settings{
		Home: "home", AgentImage: "registry.example/agentcube:1", AgentPullPolicy: corev1.PullAlways,
		PullSecrets: []corev1.LocalObjectReference{{Name: "registry"}, {Name: "mirror"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Pods have %+v, want %+v", got, want)
	}
}
