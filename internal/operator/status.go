package operator

import (
	"context"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// Reasons of the condition Ready that is false.
const (
	// ReasonInvalid: the resource is not a possible template.
	ReasonInvalid = "Invalid"
	// ReasonNoRuntimeClass: its runtime class is not there.
	ReasonNoRuntimeClass = "RuntimeClassNotFound"
	// ReasonIsolation: its runtime class isolates less than it demands.
	ReasonIsolation = "IsolationTooWeak"
	// ReasonPodRefused: its Pod is refused, here or by the API server. The condition
	// Failing has this reason, too.
	ReasonPodRefused = "PodRefused"
)

// Reasons of the condition Failing. Where Pods do not start, it is what Kubernetes says
// of them, such as CrashLoopBackOff.
const (
	// ReasonNothing: nothing fails.
	ReasonNothing = "NothingFails"
	// ReasonPool: the ReplicaSet of the pool cannot be made or changed.
	ReasonPool = "PoolFailed"
	// ReasonNoPool: a pool is asked for where there cannot be one.
	ReasonNoPool = "PoolNotPossible"
	// ReasonQuota: a quota of the namespace lets no more Pods be made.
	ReasonQuota = "QuotaExceeded"
	// ReasonNotMade: a Pod could not be made, for now.
	ReasonNotMade = "PodNotMade"
	// ReasonImage: an image cannot be pulled.
	ReasonImage = "ImagePullFailed"
	// ReasonUnschedulable: no node has room for a Pod, or may run it.
	ReasonUnschedulable = corev1.PodReasonUnschedulable
)

const (
	// maxMessage bounds the message of a condition, in bytes.
	maxMessage = 2048
	// maxPool bounds a pool, as Kubernetes does.
	maxPool = math.MaxInt32
)

// statusOf is the status of a resource. That of an AgentRuntime has less.
func statusOf(u *unstructured.Unstructured) v1alpha1.CodeInterpreterStatus {
	var s v1alpha1.CodeInterpreterStatus
	if in, ok := u.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(in, &s); err != nil {
			return v1alpha1.CodeInterpreterStatus{} // written by somebody else: it is made anew
		}
	}
	return s
}

// report writes the status of a resource where it has changed.
func (r *reconciler) report(ctx context.Context, u *unstructured.Unstructured, f findings) error {
	old := statusOf(u)
	now := *old.DeepCopy()
	now.ObservedGeneration, now.Ready, now.WarmPool = u.GetGeneration(), f.unready == nil, f.pool
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&now.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: bounded(message), ObservedGeneration: u.GetGeneration(),
		})
	}
	if f.unready == nil {
		set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReconciled, r.kind+" is ready")
	} else {
		set(v1alpha1.ConditionReady, metav1.ConditionFalse, f.unready.reason, f.unready.message)
	}
	if f.failing == nil {
		set(v1alpha1.ConditionFailing, metav1.ConditionFalse, ReasonNothing, "")
	} else {
		set(v1alpha1.ConditionFailing, metav1.ConditionTrue, f.failing.reason, f.failing.message)
	}
	if equality.Semantic.DeepEqual(old, now) {
		return nil
	}
	var status any = &now
	if r.kind == api.KindAgentRuntime {
		status = &v1alpha1.AgentRuntimeStatus{Conditions: now.Conditions, ObservedGeneration: now.ObservedGeneration}
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	change := u.DeepCopy()
	change.Object["status"] = object
	// Of two operators of which one does not know yet that it has lost its lease, the
	// one that is behind is refused.
	err = r.client.Status().Patch(ctx, change, client.MergeFromWithOptions(u, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

// bounded cuts a message that is too long.
func bounded(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return message[:maxMessage-3] + "..."
}

// pods are those of a CodeInterpreter that wait, or have waited, in a pool. They are
// not to be changed.
func (r *reconciler) pods(ctx context.Context, u *unstructured.Unstructured) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := r.client.List(ctx, &list, client.InNamespace(u.GetNamespace()),
		client.MatchingFields{byTemplate: templateLabel(u.GetName())}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list Pods: %w", err)
	}
	return list.Items, nil
}

// poolStatus counts Pods: of those that wait, the ones of a pool; nobody can take
// others. It is nil where there is nothing to count.
func poolStatus(pods []corev1.Pod, pool string, wanted int64) *v1alpha1.WarmPoolStatus {
	s := &v1alpha1.WarmPoolStatus{Wanted: int32(max(0, min(wanted, maxPool)))} //nolint:gosec // bounded
	for i := range pods {
		p := &pods[i]
		switch {
		case p.DeletionTimestamp != nil:
		case p.Labels[podspec.LabelPool] != "":
			if p.Labels[podspec.LabelPool] == pool && podspec.Ready(p) {
				s.Ready++
			}
		case p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed:
			s.Claimed++
		}
	}
	if *s == (v1alpha1.WarmPoolStatus{}) {
		return nil
	}
	return s
}
