package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// probeSeconds is how often, and how long, a PicoD that waits is asked for its health.
const probeSeconds = 1

// Waiting is the Pod that waits in a pool for a session, from the Pod that Build made,
// of which PicoD is the first process. A ReplicaSet takes it: its restart policy is
// Always, and it is ready when PicoD is. pool is Pool(t): what is added here does not
// count, so that whoever takes a Pod need not know of it.
func Waiting(t corev1.PodTemplateSpec, pool string) corev1.PodTemplateSpec {
	t = *t.DeepCopy()
	t.Labels[LabelPool] = pool
	t.Spec.RestartPolicy = corev1.RestartPolicyAlways
	t.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health", Port: intstr.FromInt32(int32(sandbox.AgentPort))}},
		PeriodSeconds: probeSeconds, TimeoutSeconds: probeSeconds,
	}
	return t
}

// Ready says whether a Pod that waits is fit to be used.
func Ready(p *corev1.Pod) bool {
	if p.Status.Phase != corev1.PodRunning || p.Status.PodIP == "" {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
