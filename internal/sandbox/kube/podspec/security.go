package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// lockDown takes from a Pod what its template did not ask for by name: the rights of
// root, privileges, capabilities, system calls, and the token of a service account.
func lockDown(pod *corev1.PodSpec, asRoot bool) {
	no, yes := false, true
	if pod.AutomountServiceAccountToken == nil {
		pod.AutomountServiceAccountToken = &no
	}
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
	user := UserID
	if asRoot {
		user = 0
	} else if sc.RunAsNonRoot == nil {
		sc.RunAsNonRoot = &yes
	}
	for _, id := range []**int64{&sc.RunAsUser, &sc.RunAsGroup, &sc.FSGroup} {
		if *id == nil {
			own := user
			*id = &own
		}
	}
	for i := range pod.InitContainers {
		lockContainer(&pod.InitContainers[i], asRoot && pod.InitContainers[i].Name != initContainer)
	}
	for i := range pod.Containers {
		lockContainer(&pod.Containers[i], asRoot)
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
		sc.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
		if asRoot {
			sc.Capabilities.Add = rootCapabilities()
		}
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
