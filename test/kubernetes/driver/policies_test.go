package driver

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestPolicies: the first sandbox of a namespace is not there before its network
// policies are, which let in the callers alone, and whatever happened to them they are
// there again before the next. The network of this node does not enforce them: what
// they do is Kubernetes' promise.
func TestPolicies(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	useUp(t, ns) // policies come first: no Pod is needed to see them
	callers := podspec.Callers{Namespace: "agentcube-system", Labels: map[string]string{"app": "agentcube"}}
	d := openDriver(t, kube.Config{Namespace: ns, Callers: callers})
	spec, _ := newSpec(t, ns, "")
	try := func() {
		t.Helper()
		if _, err := d.Create(t.Context(), spec); !errors.Is(err, sandbox.ErrFull) {
			t.Fatalf("Create = %v", err)
		}
	}
	policies := node.client.NetworkingV1().NetworkPolicies(ns)
	right := func() bool {
		for _, want := range podspec.Policies(ns, callers.Namespace, callers) {
			got, err := policies.Get(t.Context(), want.Name, metav1.GetOptions{})
			if err != nil || cmp.Diff(want.Spec, got.Spec) != "" {
				return false
			}
		}
		return true
	}
	try()
	if !right() {
		t.Error("network policies are not there after the first sandbox was asked for")
	}
	closed, err := policies.Get(t.Context(), podspec.PolicyName(callers.Namespace), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from := closed.Spec.Ingress
	if len(from) != 1 || len(from[0].From) != 1 || len(closed.Spec.Egress) > 0 ||
		from[0].From[0].NamespaceSelector.MatchLabels[corev1.LabelMetadataName] != "agentcube-system" ||
		from[0].From[0].PodSelector.MatchLabels["app"] != "agentcube" {
		t.Errorf("policy is %+v", closed.Spec)
	}

	for what, harm := range map[string]func() error{
		"deleted": func() error {
			return policies.Delete(t.Context(), podspec.PolicyName(callers.Namespace), metav1.DeleteOptions{})
		},
		"opened": func() error {
			open := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: podspec.PolicyName(callers.Namespace)}}
			open.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
			_, err := policies.Update(t.Context(), open, metav1.UpdateOptions{})
			return err
		},
		"unlabelled": func() error {
			p, err := policies.Get(t.Context(), podspec.PolicyInternet(callers.Namespace), metav1.GetOptions{})
			if err != nil {
				return err
			}
			p.Labels, p.Spec.Egress = nil, []networkingv1.NetworkPolicyEgressRule{{}}
			_, err = policies.Update(t.Context(), p, metav1.UpdateOptions{})
			return err
		},
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		await(t, "a policy that was "+what, func() bool {
			try()
			return right()
		})
	}
}

// TestNoPolicies: where others close sandboxes, none are made.
func TestNoPolicies(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	useUp(t, ns)
	d := openDriver(t, kube.Config{Namespace: ns})
	spec, _ := newSpec(t, ns, "")
	wantRefused(t, d, spec, sandbox.ErrFull, "quota")
	list, err := node.client.NetworkingV1().NetworkPolicies(ns).List(context.Background(), metav1.ListOptions{})
	if err != nil || len(list.Items) > 0 {
		t.Errorf("there are %d policies, %v", len(list.Items), err)
	}
}
