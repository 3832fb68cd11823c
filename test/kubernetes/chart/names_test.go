package chart

import "testing"

// namespaced are the kinds that the chart makes in the release's namespace, when it names
// none.
var namespaced = map[string]bool{
	"ConfigMap": true, "Deployment": true, "HorizontalPodAutoscaler": true, "PodDisruptionBudget": true, "PodMonitor": true, "Role": true,
	"RoleBinding": true, "Secret": true, "Service": true, "ServiceAccount": true, "StatefulSet": true,
}

// TestTwo: two installations in a cluster have nothing in common, which Helm would refuse
// the second: neither what belongs to no namespace nor a template.
func TestTwo(t *testing.T) {
	type key struct{ kind, namespace, name string }
	for name, args := range map[string][2][]string{
		"a namespace for each":          {{"sandbox.namespace=one"}, {"sandbox.namespace=two"}},
		"a template for the first":      {nil, {"templates.simple-codeinterpreter.enabled=false"}},
		"the template of one elsewhere": {nil, {"templates.simple-codeinterpreter.namespace=two"}},
		"names of their own":            {{"fullnameOverride=first", "sandbox.namespace=one"}, {"fullnameOverride=second", "sandbox.namespace=two"}},
	} {
		seen := map[key]string{}
		for i, namespace := range []string{"agentcube", "second"} {
			sets := []string{"--set", "redis.addr=redis.example:6379"}
			for _, set := range args[i] {
				sets = append(sets, "--set", set)
			}
			wide := 0
			for _, u := range decoded(t, renderedIn(t, namespace, sets...)) {
				k := key{u.GetKind(), u.GetNamespace(), u.GetName()}
				if k.namespace == "" && namespaced[k.kind] {
					k.namespace = namespace
				}
				if k.namespace == "" {
					wide++
				}
				if other, ok := seen[k]; ok && other != namespace {
					t.Errorf("%s: %+v is of both", name, k)
				}
				seen[k] = namespace
			}
			if wide == 0 {
				t.Errorf("%s: nothing in %s belongs to no namespace: is it found?", name, namespace)
			}
		}
	}
}
