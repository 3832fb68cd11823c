package operator

import (
	"fmt"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// failure is why a pool is not filled: what the ReplicaSet met when it made a Pod, or
// else what keeps a Pod of the pool from starting. nil when nothing is known to be
// wrong. Of several, it is the same one each time.
func failure(set *appsv1.ReplicaSet, pods []corev1.Pod, pool string) *problem {
	for _, c := range set.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue && c.Reason == "FailedCreate" {
			return refusal(cleaned(c.Message))
		}
	}
	var worst *problem
	for i := range pods {
		p := &pods[i]
		if p.Labels[podspec.LabelPool] != pool || p.DeletionTimestamp != nil || podspec.Ready(p) {
			continue
		}
		if found := trouble(p); found != nil && (worst == nil || found.reason+found.message < worst.reason+worst.message) {
			worst = found
		}
	}
	return worst
}

// refusal says what it means that no Pod was made: some refusals pass, others are the
// template's fault.
func refusal(message string) *problem {
	switch {
	case strings.Contains(message, "exceeded quota"):
		return &problem{ReasonQuota, message}
	case strings.Contains(message, "cannot create resource"):
		// The controllers' rights are missing, or not known yet to an API server that has
		// just started.
		return &problem{ReasonNotMade, message}
	case strings.Contains(message, "is forbidden"), strings.Contains(message, "is invalid"), strings.Contains(message, "denied the request"):
		return &problem{ReasonPodRefused, message}
	}
	return &problem{ReasonNotMade, message}
}

// podName is what messages of one Pod, that hold for all, begin with.
var podName = regexp.MustCompile(`^(?i:pods?) "[^"]*" `)

// cleaned is a message without what differs from one Pod to the next.
func cleaned(message string) string { return podName.ReplaceAllString(message, "Pod ") }

// pullBackOff is what kubelet puts before the last error while it waits to try again.
var pullBackOff = regexp.MustCompile(`^Back-off pulling image "[^"]*": (ErrImagePull: )?`)

// trouble is what keeps a Pod from becoming ready, or nil while it may just take time.
func trouble(p *corev1.Pod) *problem {
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range statuses {
			if found := troubleOf(c); found != nil {
				return found
			}
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return &problem{ReasonUnschedulable, c.Message}
		}
	}
	return nil
}

func troubleOf(c corev1.ContainerStatus) *problem {
	if w := c.State.Waiting; w != nil {
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed":
			return &problem{ReasonImage, fmt.Sprintf("image %s: %s", c.Image, pullBackOff.ReplaceAllString(w.Message, ""))}
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return &problem{w.Reason, fmt.Sprintf("container %s: %s", c.Name, w.Message)}
		}
	}
	// Between two starts it may run for a moment.
	over := c.LastTerminationState.Terminated
	if c.State.Terminated != nil {
		over = c.State.Terminated
	}
	if over == nil || over.ExitCode == 0 && over.Reason == "Completed" && c.State.Terminated != nil {
		return nil // as an init container does that has done its work
	}
	return &problem{"CrashLoopBackOff", fmt.Sprintf("container %s ends, last with exit code %d (%s)", c.Name, over.ExitCode, over.Reason)}
}
