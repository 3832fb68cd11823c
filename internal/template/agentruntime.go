package template

import (
	"cmp"
	"fmt"
	"math"
	"path"

	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/sandbox"
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
	r.workingDir(where+".workingDir", container.WorkingDir)
	t.WorkingDir = container.WorkingDir
	t.Image, t.Command, t.Args = container.Image, container.Command, container.Args
	t.Env = r.env(where+".env", container.Env)
	t.Resources = r.resources(where+".resources", container.Resources)
	t.Resources.Processes = r.processes("spec.maxProcesses", ar.Spec.MaxProcesses)
	t.User, t.RunAsRoot = r.user(at, where, pod, container)
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

func (r resolver) workingDir(at, dir string) {
	if dir != "" && !path.IsAbs(dir) {
		r.bad(at, "must be an absolute path, is %q", dir)
	}
}

// user is whom the Pod says that the agent runs as, and whether that is root. Without
// a word about it the agent runs unprivileged, as on Kubernetes.
func (r resolver) user(pod, container string, p corev1.PodSpec, c corev1.Container) (user *sandbox.User, root bool) {
	var of corev1.PodSecurityContext
	if p.SecurityContext != nil {
		of = *p.SecurityContext
	}
	where := pod
	if own := c.SecurityContext; own != nil {
		where = container
		of.RunAsUser = cmp.Or(own.RunAsUser, of.RunAsUser)
		of.RunAsGroup = cmp.Or(own.RunAsGroup, of.RunAsGroup)
		of.RunAsNonRoot = cmp.Or(own.RunAsNonRoot, of.RunAsNonRoot)
	}
	root = of.RunAsUser != nil && *of.RunAsUser == 0
	if root && of.RunAsNonRoot != nil && *of.RunAsNonRoot {
		r.bad(where+".securityContext.runAsNonRoot", "forbids the user 0 that runAsUser names")
	}
	byDefault := uint32(sandbox.UserID)
	if root {
		byDefault = 0
	}
	uid := r.id(where+".securityContext.runAsUser", of.RunAsUser, byDefault)
	gid := r.id(where+".securityContext.runAsGroup", of.RunAsGroup, byDefault)
	if uid != byDefault || gid != byDefault {
		user = &sandbox.User{UID: uid, GID: gid}
	}
	return user, root
}

func (r resolver) id(at string, id *int64, byDefault uint32) uint32 {
	switch {
	case id == nil:
		return byDefault
	case *id < 0 || *id > math.MaxInt32:
		r.bad(at, "must be from 0 to %d, is %d", math.MaxInt32, *id)
		return byDefault
	}
	return uint32(*id)
}
