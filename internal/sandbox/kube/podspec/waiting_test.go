package podspec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestWaiting: a Pod that waits is the one that is built, but for what a pool needs,
// and that leaves what was built, and so the name of the pool, as it is.
func TestWaiting(t *testing.T) {
	b, err := podspec.NewBuilder(podspec.Settings{AgentImage: "agent"})
	if err != nil {
		t.Fatal(err)
	}
	build := func() corev1.PodTemplateSpec {
		built, err := b.Build(sandbox.Spec{Image: "python", BootstrapKey: "a key"})
		if err != nil {
			t.Fatal(err)
		}
		return built
	}
	built := build()
	waiting := podspec.Waiting(built, "some-pool")
	if diff := cmp.Diff(build(), built); diff != "" {
		t.Errorf("what was built has changed (-before +after):\n%s", diff)
	}
	probe := waiting.Spec.Containers[0].ReadinessProbe
	if waiting.Labels[podspec.LabelPool] != "some-pool" || waiting.Spec.RestartPolicy != corev1.RestartPolicyAlways ||
		probe == nil || probe.HTTPGet.Path != "/health" || probe.HTTPGet.Port.IntValue() != int(sandbox.AgentPort) {
		t.Errorf("labels %v, restarted %s, probe %v", waiting.Labels, waiting.Spec.RestartPolicy, probe)
	}
	delete(waiting.Labels, podspec.LabelPool)
	waiting.Spec.RestartPolicy, waiting.Spec.Containers[0].ReadinessProbe = corev1.RestartPolicyNever, nil
	if diff := cmp.Diff(built, waiting); diff != "" {
		t.Errorf("something else is different (-built +waiting):\n%s", diff)
	}
}
