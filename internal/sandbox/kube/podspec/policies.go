package podspec

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Callers are the Pods that may open connections to sandboxes: those of the Router
// and of the Workload Manager.
type Callers struct {
	Namespace string
	Labels    map[string]string
}

// What the network policies are for, as the end of their names.
const (
	closing      = "sandbox"
	openInternet = "sandbox-internet"
	openAll      = "sandbox-all"
)

// PolicyName is the name of the policy that closes the sandboxes of the AgentCube in the
// namespace home; PolicyInternet and PolicyAll are those of the policies that open some
// to the outside.
func PolicyName(home string) string { return policyName(closing, home) }

// PolicyInternet is for those that may use public addresses; see PolicyName.
func PolicyInternet(home string) string { return policyName(openInternet, home) }

// PolicyAll is for those that may use all; see PolicyName.
func PolicyAll(home string) string { return policyName(openAll, home) }

func policyName(what, home string) string {
	name := "agentcube-" + what
	if home != "" {
		name += "." + home
	}
	return name
}

// Policies are the network policies of a namespace with sandboxes of the AgentCube in
// the namespace home. They belong to no template: the sandboxes that one leaves behind
// stay closed.
func Policies(namespace, home string, callers Callers) []networkingv1.NetworkPolicy {
	closed := networkPolicy(namespace, home, closing, "")
	closed.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	closed.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: callers.Namespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: callers.Labels},
	}}}}
	internet := networkPolicy(namespace, home, openInternet, "internet")
	internet.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	internet.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{names(), {To: []networkingv1.NetworkPolicyPeer{
		{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: privateV4()}},
		{IPBlock: &networkingv1.IPBlock{CIDR: "::/0", Except: privateV6()}},
	}}}
	all := networkPolicy(namespace, home, openAll, "all")
	all.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	all.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	return []networkingv1.NetworkPolicy{closed, internet, all}
}

func networkPolicy(namespace, home, what, network string) networkingv1.NetworkPolicy {
	match := Selector(home)
	if network != "" {
		match[LabelNetwork] = network
	}
	return networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: policyName(what, home), Labels: map[string]string{LabelManagedBy: ManagedBy}},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: match}},
	}
}

// names lets look up names at the cluster's own DNS.
func names() networkingv1.NetworkPolicyEgressRule {
	port := intstr.FromInt32(53)
	udp, tcp := corev1.ProtocolUDP, corev1.ProtocolTCP
	return networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
		}},
		Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}, {Protocol: &tcp, Port: &port}},
	}
}

// privateV4 are the addresses of IPv4 that are not of the internet, by the IANA's
// registry of special-purpose addresses: among them those of nodes, Pods, services
// and of the metadata that clouds serve to machines. 168.63.129.16 is public, and Azure's
// for a server that gives a machine its secrets.
func privateV4() []string {
	return []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
	}
}

// privateV6 are those of IPv6.
func privateV6() []string {
	return []string{"::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "ff00::/8"}
}
