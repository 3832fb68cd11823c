package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/template"
)

// reconciler makes what the resources of one kind ask for, and their status.
type reconciler struct {
	kind    string
	cfg     Config
	log     *slog.Logger
	client  client.Client // reads what is watched
	live    client.Reader // asks the API server
	builder *podspec.Builder
}

// problem is what a condition tells.
type problem struct{ reason, message string }

// findings are what the status of a resource is made from.
type findings struct {
	unready *problem // why no sessions can be created; nil when they can
	failing *problem // what could not be done; nil when nothing
	pool    *v1alpha1.WarmPoolStatus
	again   time.Duration // when to look again, whatever happens; 0 means not
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	u := resource(r.kind)
	if err := r.client.Get(ctx, req.NamespacedName, u); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if u.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, nil // the garbage collector does the rest
	}
	found, err := r.look(ctx, u)
	if found != nil {
		err = errors.Join(err, r.report(ctx, u, *found))
	}
	switch {
	case err == nil:
		return reconcile.Result{RequeueAfter: found.again}, nil
	case behind(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		// What is known is a moment old, or about to go.
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	return reconcile.Result{}, fmt.Errorf("reconcile %s: %w", r.kind, err)
}

// behind: what was known when something was written was not true any more.
func behind(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// look does what a resource asks for and says what has come of it. An error is to be
// tried again; with nil it is not known what there is to say.
func (r *reconciler) look(ctx context.Context, u *unstructured.Unstructured) (*findings, error) {
	t, pod, unready := r.read(u)
	if unready != nil && r.kind == api.KindCodeInterpreter {
		return r.withoutTemplate(ctx, u, unready)
	}
	if unready == nil {
		var err error
		if unready, err = r.checkClass(ctx, t); err != nil {
			return nil, err
		}
	}
	if r.kind == api.KindCodeInterpreter {
		return r.withPool(ctx, u, t, pod, unready)
	}
	return &findings{unready: unready}, nil
}

// read makes the Pod of a resource's sandboxes, or says why that is not possible.
func (r *reconciler) read(u *unstructured.Unstructured) (template.Template, corev1.PodTemplateSpec, *problem) {
	t, err := kubetemplate.Of(u, r.cfg.DefaultImage)
	if err != nil {
		return t, corev1.PodTemplateSpec{}, &problem{ReasonInvalid, sentence(err)}
	}
	pod, err := r.builder.Build(t.Spec(r.cfg.BootstrapPEM))
	if err != nil {
		return t, pod, &problem{ReasonPodRefused, err.Error()}
	}
	return t, pod, nil
}

// sentence tells the mistakes of a template without the name of what they are told of.
func sentence(err error) string {
	problems, ok := errors.AsType[template.Problems](err)
	if !ok {
		return err.Error()
	}
	var out []string
	for _, p := range problems {
		if p.Field != "" {
			p.Text = p.Field + ": " + p.Text
		}
		out = append(out, p.Text)
	}
	return strings.Join(out, "; ")
}

// isolations, from the weakest to the strongest.
func isolations() []string { return []string{"none", "runc", "gvisor", "kata"} }

// checkClass says whether the runtime class of a template is there and isolates as
// much as the template demands.
func (r *reconciler) checkClass(ctx context.Context, t template.Template) (*problem, error) {
	have := r.cfg.DefaultIsolation
	x := t.Extras.(*podspec.Extras)
	if name := x.Pod.RuntimeClassName; name != nil && *name != "" {
		var class nodev1.RuntimeClass
		err := r.client.Get(ctx, client.ObjectKey{Name: *name}, &class)
		switch {
		case apierrors.IsNotFound(err):
			return &problem{ReasonNoRuntimeClass, fmt.Sprintf("there is no RuntimeClass %q", *name)}, nil
		case err != nil:
			return nil, fmt.Errorf("look for runtime class: %w", err)
		}
		have = podspec.IsolationOf(&class)
	}
	if slices.Index(isolations(), have) < slices.Index(isolations(), t.MinIsolation) {
		return &problem{ReasonIsolation, fmt.Sprintf("the template demands isolation %q; here it is %q", t.MinIsolation, have)}, nil
	}
	return nil, nil
}

// withoutTemplate is for a resource that cannot be used. Its pools are kept for a
// while, for whom mends a mistake, and then they go: nobody can take their Pods.
func (r *reconciler) withoutTemplate(ctx context.Context, u *unstructured.Unstructured, unready *problem) (*findings, error) {
	sets, err := r.owned(ctx, u)
	if err != nil {
		return nil, err
	}
	pods, err := r.pods(ctx, u)
	if err != nil {
		return nil, err
	}
	size, _, _ := unstructured.NestedInt64(u.Object, "spec", "warmPoolSize")
	f := &findings{unready: unready, pool: poolStatus(pods, "", size)}
	if len(sets) == 0 {
		return f, nil
	}
	if left := r.cfg.Patience - unreadyFor(u); left > 0 {
		f.again = left
		return f, nil
	}
	if err = r.drop(ctx, sets); err != nil {
		f.failing = &problem{ReasonPool, err.Error()}
	}
	return f, err
}

// unreadyFor is how long the status has said that a resource is not ready.
func unreadyFor(u *unstructured.Unstructured) time.Duration {
	ready := meta.FindStatusCondition(statusOf(u).Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionFalse {
		return 0
	}
	return time.Since(ready.LastTransitionTime.Time)
}

// withPool keeps the pool of a resource whose Pods can be made; unready says why they
// cannot be used for now.
func (r *reconciler) withPool(
	ctx context.Context, u *unstructured.Unstructured, t template.Template, pod corev1.PodTemplateSpec, unready *problem,
) (*findings, error) {
	pool, err := podspec.Pool(pod)
	if err != nil {
		return nil, err
	}
	size := int32(min(t.WarmPoolSize, maxPool)) //nolint:gosec // bounded
	keep := size
	if !t.Extras.(*podspec.Extras).Agent {
		keep = 0
	}
	state, keepErr := r.keep(ctx, u, podspec.Waiting(pod, pool), pool, keep)
	if behind(keepErr) {
		return nil, keepErr
	}
	pods, err := r.pods(ctx, u)
	if err != nil {
		return nil, errors.Join(keepErr, err)
	}
	f := &findings{unready: unready, pool: poolStatus(pods, pool, int64(size)), again: state.again}
	switch {
	case apierrors.IsInvalid(keepErr):
		f.failing = &problem{ReasonPodRefused, keepErr.Error()}
	case keepErr != nil:
		f.failing = &problem{ReasonPool, keepErr.Error()}
	case size > keep:
		f.failing = &problem{ReasonNoPool, "there is no warm pool: with authMode none nothing says when a sandbox is ready"}
	case keep > 0:
		f.failing = failure(state.current, pods, pool)
	}
	if f.unready == nil && f.failing != nil && f.failing.reason == ReasonPodRefused && (f.pool == nil || f.pool.Ready == 0) {
		f.unready = f.failing
	}
	return f, keepErr
}
