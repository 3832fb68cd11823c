package kube

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

func at(minute int) metav1.Time {
	return metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC))
}

func terminated(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message, FinishedAt: at(2)}}
}

// pod is one that was made in minute 0, and has a status.
func pod(status corev1.PodStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(0), Labels: map[string]string{podspec.LabelSandbox: "s"}}, Status: status,
	}
}

// TestExitOf: ends that no test on a node can bring about at will.
func TestExitOf(t *testing.T) {
	one := func(s corev1.ContainerStatus) []corev1.ContainerStatus { return []corev1.ContainerStatus{s} }
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for name, test := range map[string]struct {
		status corev1.PodStatus
		before string // AnnotationRestarts
		want   *sandbox.Exit
	}{
		"pending": {corev1.PodStatus{Phase: corev1.PodPending}, "", nil},
		"running": {corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: one(corev1.ContainerStatus{State: runs})}, "", nil},
		"ended": {corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: one(corev1.ContainerStatus{State: terminated(3, "Error", "")})}, "",
			&sandbox.Exit{Reason: sandbox.ExitStopped, Detail: "its first process ended with exit code 3", At: at(2).UTC()}},
		"out of memory": {corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: one(corev1.ContainerStatus{State: terminated(137, "OOMKilled", "")})}, "",
			&sandbox.Exit{Reason: sandbox.ExitOutOfMemory, At: at(2).UTC()}},
		"evicted, with its container": {corev1.PodStatus{
			Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory. ",
			Conditions:        []corev1.PodCondition{{LastTransitionTime: at(1)}, {LastTransitionTime: at(3)}, {}},
			ContainerStatuses: one(corev1.ContainerStatus{State: terminated(137, "Error", "")}),
		}, "", &sandbox.Exit{Reason: sandbox.ExitLost, Detail: "Kubernetes ended its Pod: Evicted: The node was low on resource: memory", At: at(3).UTC()}},
		"node shut down": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Terminated"}, "",
			&sandbox.Exit{Reason: sandbox.ExitLost, Detail: "Kubernetes ended its Pod: Terminated", At: at(0).UTC()}},
		"failed without a word": {corev1.PodStatus{Phase: corev1.PodFailed}, "",
			&sandbox.Exit{Reason: sandbox.ExitLost, Detail: "Kubernetes ended its Pod", At: at(0).UTC()}},
		"succeeded": {corev1.PodStatus{Phase: corev1.PodSucceeded}, "", &sandbox.Exit{Reason: sandbox.ExitStopped, At: at(0).UTC()}},
		"second container": {corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{State: runs}, {State: terminated(1, "Error", "")},
		}}, "", &sandbox.Exit{Reason: sandbox.ExitStopped, Detail: "its first process ended with exit code 1", At: at(2).UTC()}},
		"started anew": {corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: one(corev1.ContainerStatus{
			State: runs, RestartCount: 1, LastTerminationState: terminated(0, "Completed", ""),
		})}, "", &sandbox.Exit{Reason: sandbox.ExitStopped, Detail: "its container was started anew, without what it had in memory", At: at(2).UTC()}},
		"started anew for want of memory": {corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: one(corev1.ContainerStatus{
			State: runs, RestartCount: 3, LastTerminationState: terminated(137, "OOMKilled", ""),
		})}, "2", &sandbox.Exit{Reason: sandbox.ExitOutOfMemory, At: at(2).UTC()}},
		"started anew in its pool": {corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: one(corev1.ContainerStatus{
			State: runs, RestartCount: 2, LastTerminationState: terminated(137, "OOMKilled", ""),
		})}, "2", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(test.status)
			if test.before != "" {
				p.Annotations = map[string]string{podspec.AnnotationRestarts: test.before}
			}
			got := exitOf(p)
			if test.want != nil {
				test.want.ID = "s"
			}
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
				t.Errorf("exit is %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestFailure: what starts badly, and what may still come right.
func TestFailure(t *testing.T) {
	waits := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "m"}}},
		}}
	}
	for name, test := range map[string]struct {
		status corev1.PodStatus
		waited time.Duration
		want   error
		text   string
	}{
		"creating":           {waits("ContainerCreating"), time.Hour, nil, ""},
		"pull failed once":   {waits("ErrImagePull"), time.Second, nil, ""},
		"pull fails":         {waits("ErrImagePull"), time.Minute, sandbox.ErrNoImage, "image not found: ErrImagePull: m"},
		"pull given up":      {waits("ImagePullBackOff"), time.Second, sandbox.ErrNoImage, "image not found: ImagePullBackOff: m"},
		"cannot be made":     {waits("CreateContainerError"), 0, sandbox.ErrBadTemplate, "sandboxes of this template cannot be made: container c: CreateContainerError: m"},
		"no room on the way": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfcpu", Message: "Node didn't have enough resource: cpu"}, 0, sandbox.ErrFull, "no room for another sandbox: Kubernetes ended its Pod: OutOfcpu: Node didn't have enough resource: cpu"},
		"evicted": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}, 0, sandbox.ErrNotRunning,
			"sandbox is not running: Kubernetes ended its Pod: Evicted"},
		"init container fails": {corev1.PodStatus{Phase: corev1.PodFailed,
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: terminated(0, "Completed", "")}, {Name: "j", State: terminated(1, "Error", "no space left")}},
			ContainerStatuses:     waits("PodInitializing").ContainerStatuses,
		}, 0, sandbox.ErrBadTemplate, "sandboxes of this template cannot be made: container j ended at its start with exit code 1: Error: no space left"},
		"server ends well": {corev1.PodStatus{Phase: corev1.PodSucceeded,
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: terminated(0, "Completed", "")}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "c", State: terminated(0, "Completed", "")}},
		}, 0, sandbox.ErrBadTemplate, "sandboxes of this template cannot be made: container c ended at its start with exit code 0: Completed"},
		"failed without a word": {corev1.PodStatus{Phase: corev1.PodFailed}, 0, sandbox.ErrNotRunning, "sandbox is not running: it ended at its start"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := New(Config{})
			if err != nil {
				t.Fatal(err)
			}
			err = d.failure(pod(test.status), test.waited)
			if test.want == nil && err != nil || !errors.Is(err, test.want) || err != nil && err.Error() != test.text {
				t.Errorf("failure is %v, want %q", err, test.text)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{Callers: podspec.Callers{Namespace: "n"}}); err == nil {
		t.Error("every Pod of a namespace may be a caller")
	}
}

// TestContextError: callers tell by the context's error that they have given up.
func TestContextError(t *testing.T) {
	limiter := flowcontrol.NewTokenBucketRateLimiter(0.001, 1)
	limiter.Accept()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	limited := limiter.Wait(ctx)
	if limited == nil || errors.Is(limited, context.DeadlineExceeded) {
		t.Fatalf("the rate limiter says %v: contextError is not needed any more", limited)
	}
	if err := contextError(ctx, limited); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, limited) {
		t.Errorf("error is %v, want the context's too", err)
	}
	other := errors.New("other")
	if err := contextError(ctx, other); !errors.Is(err, other) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want it as it was", err)
	}
	cancel()
	if err := contextError(ctx, other); !errors.Is(err, context.Canceled) || !errors.Is(err, other) {
		t.Errorf("error after the end is %v, want both", err)
	}
}
