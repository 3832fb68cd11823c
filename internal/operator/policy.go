package operator

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// policyReconciler keeps the network policies of namespaces, which are the names of
// its requests.
type policyReconciler struct {
	home    string
	callers podspec.Callers
	log     *slog.Logger
	client  client.Client // reads what is watched
	live    client.Reader // asks the API server
}

// Reconcile implements reconcile.Reconciler.
func (r *policyReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	used, err := r.used(ctx, req.Name)
	if err != nil || !used {
		return reconcile.Result{}, err
	}
	for _, want := range podspec.Policies(req.Name, r.home, r.callers) {
		if err := r.ensure(ctx, &want); err != nil {
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return reconcile.Result{}, nil
			}
			if apierrors.IsConflict(err) { // what is known is a moment old
				return reconcile.Result{RequeueAfter: time.Second}, nil
			}
			return reconcile.Result{}, fmt.Errorf("keep network policy %s/%s: %w", want.Namespace, want.Name, err)
		}
	}
	return reconcile.Result{}, nil
}

// used: a namespace has templates, or sandboxes that are left of some.
func (r *policyReconciler) used(ctx context.Context, namespace string) (bool, error) {
	for _, list := range []client.ObjectList{resources(api.KindCodeInterpreter), resources(api.KindAgentRuntime), &corev1.PodList{}} {
		if err := r.client.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
			return false, fmt.Errorf("look at namespace %s: %w", namespace, err)
		}
		if meta.LenList(list) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// ensure makes a network policy as it is wanted.
func (r *policyReconciler) ensure(ctx context.Context, want *networkingv1.NetworkPolicy) error {
	var have networkingv1.NetworkPolicy
	key := client.ObjectKeyFromObject(want)
	err := r.client.Get(ctx, key, &have)
	if apierrors.IsNotFound(err) {
		if err = r.client.Create(ctx, want); err == nil {
			r.log.Info("network policy made", "namespace", want.Namespace, "policy", want.Name)
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		err = r.live.Get(ctx, key, &have) // somebody has taken its label off, or was faster
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(want.Spec, have.Spec) && equality.Semantic.DeepDerivative(want.Labels, have.Labels) {
		return nil
	}
	have.Spec = want.Spec
	for name, value := range want.Labels {
		metav1.SetMetaDataLabel(&have.ObjectMeta, name, value)
	}
	if err := r.client.Update(ctx, &have); err != nil {
		return err
	}
	r.log.Info("network policy put right", "namespace", want.Namespace, "policy", want.Name)
	return nil
}
