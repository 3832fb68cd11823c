package template

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

// agentRuntime resolves a Pod of one container. What would give the agent
// something that one machine does not have is refused; what says how Kubernetes
// schedules, pulls and probes is accepted without effect.
func (r resolver) agentRuntime(ar *v1alpha1.AgentRuntime) Template {
	t := r.common(ar.ObjectMeta, ar.Spec.SessionTimeout, ar.Spec.MaxSessionDuration, ar.Spec.Isolation)
	t.AuthMode = AuthNone
	r.network("spec.network", ar.Spec.Network)
	if r.lines["spec.targetPort"] == 0 {
		r.bad("spec.targetPort", "is missing")
	}
	t.Ports = r.ports("spec.targetPort", ar.Spec.Ports)
	if ar.Spec.Template == nil {
		r.bad("spec.podTemplate", "is missing")
		return t
	}
	const at = "spec.podTemplate.spec"
	pod := ar.Spec.Template.Spec
	t.Labels = r.labels("spec.podTemplate.labels", ar.Spec.Template.Labels)
	if !r.kubernetes {
		r.onlyKubernetes(at, pod)
	}
	if len(pod.Containers) == 0 {
		r.bad(at+".containers", "is missing")
		return t
	}
	container := pod.Containers[0]
	where := at + ".containers[0]"
	if !r.kubernetes {
		r.containerOnlyKubernetes(where, container)
	}
	r.image(where+".image", container.Image)
	r.ownCommand(where+".command", container.Command)
	t.Image, t.Command, t.Args = container.Image, container.Command, container.Args
	t.Env = r.env(where+".env", container.Env)
	t.Resources = r.resources(where+".resources", container.Resources)
	t.Resources.Processes = r.processes("spec.maxProcesses", ar.Spec.MaxProcesses)
	t.RunAsRoot = runsAsRoot(pod, container)
	r.references(where, t)
	return t
}

func (r resolver) onlyKubernetes(at string, pod corev1.PodSpec) {
	if len(pod.Containers) > 1 {
		r.bad(at+".containers", "a sandbox here has one container, not %d", len(pod.Containers))
	}
	for field, there := range map[string]bool{
		"initContainers":      len(pod.InitContainers) > 0,
		"ephemeralContainers": len(pod.EphemeralContainers) > 0,
		"volumes":             len(pod.Volumes) > 0,
		"hostNetwork":         pod.HostNetwork,
		"hostPID":             pod.HostPID,
		"hostIPC":             pod.HostIPC,
		"resourceClaims":      len(pod.ResourceClaims) > 0,
	} {
		if there {
			r.bad(at+"."+field, "needs Kubernetes")
		}
	}
}

func (r resolver) containerOnlyKubernetes(at string, c corev1.Container) {
	privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	for field, there := range map[string]bool{
		"envFrom":                    len(c.EnvFrom) > 0,
		"volumeMounts":               len(c.VolumeMounts) > 0,
		"volumeDevices":              len(c.VolumeDevices) > 0,
		"lifecycle":                  c.Lifecycle != nil,
		"securityContext.privileged": privileged,
	} {
		if there {
			r.bad(fmt.Sprintf("%s.%s", at, field), "needs Kubernetes")
		}
	}
}

// runsAsRoot: the Pod asks for user 0 by name; without a word about the user
// the agent runs unprivileged.
func runsAsRoot(pod corev1.PodSpec, c corev1.Container) bool {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return *c.SecurityContext.RunAsUser == 0
	}
	return pod.SecurityContext != nil && pod.SecurityContext.RunAsUser != nil && *pod.SecurityContext.RunAsUser == 0
}
