package podspec_test

import (
	"testing"

	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// TestIsolation: what is not known is not taken for isolation.
func TestIsolation(t *testing.T) {
	for handler, want := range map[string]string{
		"runsc": "gvisor", "gvisor": "gvisor", "runsc-kvm": "gvisor", "kata": "kata", "kata-qemu": "kata", "runc": "runc", "crun": "runc",
		"runscx": "none", "katana": "none", "wasm": "none", "": "none",
	} {
		if got := podspec.IsolationOf(&nodev1.RuntimeClass{Handler: handler}); got != want {
			t.Errorf("handler %q isolates by %q, want %q", handler, got, want)
		}
	}
	for said, want := range map[string]string{"kata": "kata", "none": "none", "strong": "gvisor", "": "gvisor"} {
		class := &nodev1.RuntimeClass{Handler: "runsc", ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{podspec.AnnotationIsolation: said}}}
		if got := podspec.IsolationOf(class); got != want {
			t.Errorf("a class that says %q isolates by %q, want %q", said, got, want)
		}
	}
}
