package kube

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// closeSandboxes makes the network policies of a namespace before each of its
// sandboxes, where they are not there as they should be: somebody may have changed
// them, or deleted the namespace and made it again.
func (d *Driver) closeSandboxes(ctx context.Context, namespace string) error {
	if d.policies == nil {
		return nil
	}
	for _, p := range podspec.Policies(namespace, d.cfg.Pods.Home, d.cfg.Callers) {
		have, err := d.policies.NetworkPolicies(namespace).Get(p.Name)
		if err == nil && apiequality.Semantic.DeepEqual(have.Spec, p.Spec) {
			continue
		}
		if err := d.putPolicy(ctx, &p); err != nil {
			return fmt.Errorf("make network policy %s: %w", p.Name, contextError(ctx, err))
		}
	}
	return nil
}

func (d *Driver) putPolicy(ctx context.Context, p *networkingv1.NetworkPolicy) error {
	client := d.cfg.Client.NetworkingV1().NetworkPolicies(p.Namespace)
	_, err := client.Create(ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = client.Update(ctx, p, metav1.UpdateOptions{})
	}
	return err
}
