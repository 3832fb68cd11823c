package podspec

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/policy"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// allowed refuses what a template asks for that would give its sandboxes, or whoever
// wrote it, more than a sandbox in that namespace: the rights of a service account, a
// node or a rank of their choice, what only nodes may mount.
func (b *Builder) allowed(x Extras) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", sandbox.ErrBadTemplate, fmt.Sprintf(format, args...))
	}
	pod := &x.Pod
	switch {
	case pod.AutomountServiceAccountToken != nil && *pod.AutomountServiceAccountToken:
		return bad("automountServiceAccountToken: a sandbox is given no token of a service account")
	case pod.NodeName != "":
		return bad("nodeName: the scheduler places sandboxes; nodeSelector and affinity say where")
	case strings.HasPrefix(pod.PriorityClassName, "system-"):
		return bad("priorityClassName: %s is for parts of the cluster", pod.PriorityClassName)
	}
	for _, check := range policy.CheckRestrictedVolumes().Versions {
		if result := check.CheckPod(nil, pod); !result.Allowed {
			return bad("volumes: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	for _, v := range pod.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil || s.PodCertificate != nil {
				return bad("volume %s: a sandbox is given no token or certificate of a service account", v.Name)
			}
		}
	}
	if x.Namespace == b.settings.Home && x.Namespace != "" {
		if name := namesOwn(x); name != "" {
			return bad("%s: not in namespace %s, where AgentCube itself is", name, x.Namespace)
		}
	}
	return nil
}

// namesOwn is the first thing by which a template could reach what else is in its
// namespace, or be taken for that; "" when there is none.
func namesOwn(x Extras) string {
	account := cmp.Or(x.Pod.ServiceAccountName, x.Pod.DeprecatedServiceAccount, "default")
	switch {
	case len(x.Labels) > 0:
		return "labels"
	case account != "default":
		return "serviceAccountName"
	case len(x.Pod.ResourceClaims) > 0:
		return "resourceClaims"
	}
	for _, v := range x.Pod.Volumes {
		if v.EmptyDir == nil && v.DownwardAPI == nil && v.Image == nil {
			return "volume " + v.Name
		}
	}
	for _, containers := range [][]corev1.Container{x.Pod.InitContainers, x.Pod.Containers} {
		for _, c := range containers {
			if len(c.EnvFrom) > 0 {
				return "envFrom of " + c.Name
			}
			for _, e := range c.Env {
				if from := e.ValueFrom; from != nil && from.FieldRef == nil && from.ResourceFieldRef == nil {
					return "variable " + e.Name
				}
			}
		}
	}
	return ""
}
