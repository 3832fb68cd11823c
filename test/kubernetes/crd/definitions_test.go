package crd

import (
	"encoding/json"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestDefinitions: each is what manifests of earlier versions expect, without
// anything that the API server objects to, and fits into the annotation in which
// kubectl apply keeps it.
func TestDefinitions(t *testing.T) {
	list, err := server.dynamic.Resource(definitions).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, d := range list.Items {
		for _, condition := range []string{"Established", "NamesAccepted"} {
			if !isTrue(&d, condition) {
				t.Errorf("%s is not %s: %v", d.GetName(), condition, d.Object["status"])
			}
		}
		if isTrue(&d, "NonStructuralSchema") {
			t.Errorf("%s is not structural", d.GetName())
		}
		scope, _, _ := unstructured.NestedString(d.Object, "spec", "scope")
		kind, _, _ := unstructured.NestedString(d.Object, "spec", "names", "listKind")
		kinds[d.GetName()] = scope + " " + kind
		text, err := json.Marshal(d.Object["spec"])
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 240<<10 {
			t.Errorf("%s has %d bytes: too many for an annotation, whose limit is 256 KiB", d.GetName(), len(text))
		}
	}
	if len(kinds) != 2 || kinds["codeinterpreters.runtime.agentcube.volcano.sh"] != "Namespaced CodeInterpreterList" ||
		kinds["agentruntimes.runtime.agentcube.volcano.sh"] != "Namespaced AgentRuntimeList" {
		t.Errorf("the definitions are %v", kinds)
	}
}
