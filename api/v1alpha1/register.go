package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// AddToScheme makes the resources known to a scheme, and with it to the clients
// and caches that are made with that scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &CodeInterpreter{}, &CodeInterpreterList{}, &AgentRuntime{}, &AgentRuntimeList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
