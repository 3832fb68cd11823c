package security

const (
	podBuild    = "internal/sandbox/kube/podspec/build.go"
	podSecurity = "internal/sandbox/kube/podspec/security.go"
	podAllowed  = "internal/sandbox/kube/podspec/allowed.go"
)

func inPodspec(name string) Test { return Test{In: "internal/sandbox/kube/podspec", Name: name} }

// pods are made by the Workload Manager, which may do what those who write templates
// may not.
func pods() []Defence {
	return []Defence{
		{"pod-baseline", Writer, "asks for the host's network, its processes or its kernel", podSecurity,
			`if !result.Allowed {`, `if false {`, inPodspec("TestHostileAgents")},
		{"pod-volumes", Writer, "mounts what only nodes may mount", podAllowed,
			`!result.Allowed {`, `!result.Allowed && false {`, inPodspec("TestHostileAgents")},
		{"pod-token-asked", Writer, "asks for the token of a service account", podAllowed,
			`case pod.AutomountServiceAccountToken != nil && *pod.AutomountServiceAccountToken:`, `case false:`, inPodspec("TestHostileAgents")},
		{"pod-token-projected", Writer, "mounts the token of a service account by hand", podAllowed,
			`if s.ServiceAccountToken != nil || s.PodCertificate != nil {`, `if s.ServiceAccountToken != nil && s.PodCertificate != nil {`, inPodspec("TestHostileAgents")},
		{"pod-token", Inside, "looks for the token that Pods have by default", podSecurity,
			`	pod.AutomountServiceAccountToken = &no`, ``, inPodspec("TestGolden")},
		{"pod-node", Writer, "chooses a node past the scheduler", podAllowed,
			`case pod.NodeName != "":`, `case false:`, inPodspec("TestHostileAgents")},
		{"pod-rank", Writer, "pushes the cluster's own parts aside", podAllowed,
			`case strings.HasPrefix(pod.PriorityClassName, "system-"):`, `case strings.HasPrefix(pod.PriorityClassName, "system--"):`, inPodspec("TestHostileAgents")},
		{"pod-home", Writer, "names AgentCube's own secrets", podAllowed,
			`if x.Namespace == b.settings.Home && x.Namespace != "" {`, `if false {`, inPodspec("TestAgentsMayName")},
		{"pod-home-labels", Writer, "gives a sandbox the labels of the Router", podAllowed,
			`case len(x.Labels) > 0:`, `case false:`, inPodspec("TestLabelsAtHome")},
		{"pod-labels", Writer, "passes a Pod off as the sandbox of somebody else", "internal/sandbox/kube/podspec/labels.go",
			`return strings.HasPrefix(name, ownPrefix) ||`, `return false && strings.HasPrefix(name, ownPrefix) ||`, inPodspec("TestGolden")},
		{"pod-installation", Neighbour, "has another AgentCube of the cluster remove sandboxes", "internal/sandbox/kube/podspec/labels.go",
			`out[LabelHome] = home`, `_ = home`, inPodspec("TestGolden")},
		{"pod-variables", Writer, "gives PicoD another bootstrap key", podBuild,
			`return strings.HasPrefix(e.Name, ownVariables)`, `return false && strings.HasPrefix(e.Name, ownVariables)`, inPodspec("TestGolden")},
		{"pod-verbatim", Writer, "has Kubernetes put variables into the command line of PicoD", podBuild,
			`return strings.ReplaceAll(text, "$", "$$")`, `return text`, inPodspec("TestGolden")},
		{"pod-user", Inside, "is root because its image says so", podSecurity,
			`sc.RunAsNonRoot = &yes`, `_ = yes`, inPodspec("TestLevels")},
		{"pod-capabilities", Inside, "uses the capabilities that containers have by default", podSecurity,
			`if !slices.Contains(sc.Capabilities.Drop, "ALL") {`, `if false && !slices.Contains(sc.Capabilities.Drop, "ALL") {`, inPodspec("TestLevels")},
		{"pod-escalation", Inside, "becomes root by a program that may", podSecurity,
			`if sc.AllowPrivilegeEscalation == nil {`, `if false {`, inPodspec("TestLevels")},
		{"pod-seccomp", Inside, "makes system calls that no container needs", podSecurity,
			`if sc.SeccompProfile == nil {`, `if false {`, inPodspec("TestLevels")},
		{"pod-limits", Inside, "eats its node from the second container", podBuild,
			`limit(&containers[i], spec.Resources)`, `_ = containers[i]`, inPodspec("TestAlwaysLimited")},
		{"pod-agent", Inside, "puts another program in the place of PicoD", podBuild,
			`	mount.ReadOnly = true`, ``, inPodspec("TestGolden")},
		{"pod-network", Inside, "opens connections from a Pod", "internal/sandbox/kube/podspec/policies.go",
			`{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}`, `{networkingv1.PolicyTypeIngress}`, inPodspec("TestPoliciesGolden")},
		{"pod-machine", Inside, "asks Azure's server of machines for its node's secrets", "internal/sandbox/kube/podspec/policies.go",
			`"168.63.129.16/32", `, ``, inPodspec("TestPoliciesGolden")},
		{"pod-callers", Neighbour, "opens connections from another Pod in the Router's namespace", "internal/sandbox/kube/driver.go",
			`if cfg.Callers.Namespace != "" && len(cfg.Callers.Labels) == 0 {`, `if false {`, Test{In: "internal/sandbox/kube", Name: "TestNewRefuses"}},
	}
}
