package podspec

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// lockDown takes from a Pod what its template did not ask for by name: the rights of
// root, privileges, capabilities, system calls, and the token of a service account.
// With asRoot the first container alone is root.
func lockDown(pod *corev1.PodSpec, asRoot bool) {
	no, yes := false, true
	pod.AutomountServiceAccountToken = &no
	pod.EnableServiceLinks = &no
	stop := stopSeconds
	if s := pod.TerminationGracePeriodSeconds; s != nil {
		stop = min(*s, longestStop)
	}
	pod.TerminationGracePeriodSeconds = &stop
	if pod.SecurityContext == nil {
		pod.SecurityContext = &corev1.PodSecurityContext{}
	}
	sc := pod.SecurityContext
	if sc.SeccompProfile == nil {
		sc.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	for i := range pod.InitContainers {
		lockContainer(&pod.InitContainers[i], false)
	}
	for i := range pod.Containers {
		lockContainer(&pod.Containers[i], asRoot && i == 0)
	}
	if asRoot {
		first := pod.Containers[0].SecurityContext
		unsaid(&first.RunAsUser, sc.RunAsUser, 0)
		unsaid(&first.RunAsGroup, sc.RunAsGroup, 0)
		unsaid(&first.RunAsNonRoot, sc.RunAsNonRoot, false)
	}
	if sc.RunAsNonRoot == nil && (sc.RunAsUser == nil || *sc.RunAsUser != 0) {
		sc.RunAsNonRoot = &yes
	}
	unsaid(&sc.RunAsUser, nil, UserID)
	unsaid(&sc.RunAsGroup, nil, UserID)
	unsaid(&sc.FSGroup, nil, UserID)
}

// unsaid sets what neither a container nor its Pod says.
func unsaid[T any](of **T, ofPod *T, value T) {
	if *of == nil && ofPod == nil {
		*of = &value
	}
}

// rootCapabilities are what root of a sandbox keeps: to install packages and to
// become another user, in the Pod alone.
func rootCapabilities() []corev1.Capability {
	return []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}
}

func lockContainer(c *corev1.Container, asRoot bool) {
	no := false
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	sc := c.SecurityContext
	if sc.AllowPrivilegeEscalation == nil {
		sc.AllowPrivilegeEscalation = &no
	}
	if sc.Capabilities == nil {
		sc.Capabilities = &corev1.Capabilities{}
		if asRoot {
			sc.Capabilities.Add = rootCapabilities()
		}
	}
	if !slices.Contains(sc.Capabilities.Drop, "ALL") {
		sc.Capabilities.Drop = []corev1.Capability{"ALL"} // those that were asked for by name stay
	}
}

// checkSecurity refuses a Pod that could leave its sandbox. Who may write a template
// need not be allowed to make Pods, and the Workload Manager, which makes them, is:
// so the bounds are those that Kubernetes calls baseline, whatever the namespace lets
// pass.
func (b *Builder) checkSecurity(t corev1.PodTemplateSpec) error {
	level := api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(b.evaluator.EvaluatePod(level, &t.ObjectMeta, &t.Spec))
	if !result.Allowed {
		return fmt.Errorf("%w: its Pod would not be safe: %s", sandbox.ErrBadTemplate, result.ForbiddenDetail())
	}
	return nil
}
