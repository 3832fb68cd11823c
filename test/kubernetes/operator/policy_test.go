package operator

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// closed waits until the namespace has the policies that it has to have.
func (s space) closed() {
	s.Helper()
	want := map[string]networkingv1.NetworkPolicySpec{}
	for _, p := range podspec.Policies(s.name, home, callers()) {
		want[p.Name] = p.Spec
	}
	s.until(func() string {
		var list networkingv1.NetworkPolicyList
		s.must(world.client.List(s.Context(), &list, client.InNamespace(s.name), client.MatchingLabels{podspec.LabelManagedBy: podspec.ManagedBy}))
		have := map[string]networkingv1.NetworkPolicySpec{}
		for _, p := range list.Items {
			have[p.Name] = p.Spec
		}
		return cmp.Diff(want, have)
	})
}

// TestPolicies: a namespace with templates, or with sandboxes that are left of some,
// has the policies; what is done to them is undone.
func TestPolicies(t *testing.T) {
	s := newSpace(t)
	s.operate()
	ci := s.interpreter("a", 0)
	s.closed()
	spoil := func() {
		t.Helper()
		for _, name := range []string{podspec.PolicyName(home), podspec.PolicyInternet(home)} {
			p := &networkingv1.NetworkPolicy{}
			p.Namespace, p.Name = s.name, name
			edit(s, p, func(p *networkingv1.NetworkPolicy) {
				p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
				p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
			})
		}
		s.closed()
		for _, name := range []string{podspec.PolicyName(home), podspec.PolicyAll(home)} {
			p := &networkingv1.NetworkPolicy{}
			p.Namespace, p.Name = s.name, name
			s.must(world.client.Delete(t.Context(), p))
		}
		s.closed()
		p := &networkingv1.NetworkPolicy{}
		p.Namespace, p.Name = s.name, podspec.PolicyName(home)
		edit(s, p, func(p *networkingv1.NetworkPolicy) {
			p.Labels, p.Spec.PodSelector.MatchLabels = nil, map[string]string{"none": "such"}
		})
		s.closed()
	}
	spoil()
	s.kubelet(isPod)
	tk := s.taker()
	if _, err := tk.take(s, "a", "left"); err != nil {
		t.Fatal(err)
	}
	s.must(world.client.Delete(t.Context(), ci))
	spoil()
}

// TestNoPolicies: who closes sandboxes otherwise is not disturbed.
func TestNoPolicies(t *testing.T) {
	s := newSpace(t)
	s.operate(func(cfg *operator.Config) { cfg.Callers = podspec.Callers{} })
	s.status(s.interpreter("a", 0), isReady)
	s.settle()
	var list networkingv1.NetworkPolicyList
	s.must(world.client.List(t.Context(), &list, client.InNamespace(s.name)))
	if len(list.Items) > 0 {
		t.Errorf("there is %s", list.Items[0].Name)
	}
}
