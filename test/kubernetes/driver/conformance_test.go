package driver

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/sandbox/sandboxtest"
)

// classed makes every sandbox of a driver one with a runtime class.
type classed struct {
	*kube.Driver
	namespace, class string
}

func (d classed) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	c := corev1.Container{Name: podspec.ContainerName, ImagePullPolicy: corev1.PullIfNotPresent}
	x := &podspec.Extras{Agent: true, Namespace: d.namespace, Pod: corev1.PodSpec{Containers: []corev1.Container{c}}}
	if d.class != "" {
		x.Pod.RuntimeClassName = &d.class
	}
	if spec.Image != "" {
		spec.Extras = x
	}
	return d.Driver.Create(ctx, spec)
}

func TestConformance(t *testing.T) {
	for name, class := range runtimes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sandboxtest.Run(t, sandboxtest.Config{
				Image: pythonImage, MissingImage: "agentcube.test/none:latest", BootstrapKey: publicKey(t, bootstrap()), Bootstrap: bootstrap(),
				New: func(t *testing.T) sandbox.Driver {
					ns := newNamespace(t, nil)
					return classed{openDriver(t, kube.Config{Namespace: ns}), ns, class}
				},
				Reopen: func(t *testing.T, d sandbox.Driver) sandbox.Driver {
					old := d.(classed)
					if err := old.Close(); err != nil {
						t.Fatal(err)
					}
					return classed{openDriver(t, kube.Config{Namespace: old.namespace}), old.namespace, class}
				},
				Kill: func(ctx context.Context, d sandbox.Driver, id string) error {
					return end(ctx, d.(classed).namespace, id)
				},
				Guard: guard,
			})
		})
	}
}
