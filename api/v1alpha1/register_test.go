package v1alpha1_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

// A scheme that the resources were added to makes each of them, and lists.
func TestAddToScheme(t *testing.T) {
	scheme := runtime.NewScheme()
	for range 2 { // more than one part of a program may do so
		if err := v1alpha1.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"CodeInterpreter", "CodeInterpreterList", "AgentRuntime", "AgentRuntimeList"} {
		made, err := scheme.New(v1alpha1.GroupVersion.WithKind(kind))
		if err != nil {
			t.Error(err)
			continue
		}
		if kinds, _, err := scheme.ObjectKinds(made); err != nil || len(kinds) != 1 || kinds[0].Kind != kind {
			t.Errorf("%s is made as %v, %v", kind, kinds, err)
		}
	}
}
