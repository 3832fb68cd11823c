package v1alpha1_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

// The names that manifests of earlier versions use; they never change.
const codeInterpreter = `
apiVersion: runtime.agentcube.volcano.sh/v1alpha1
kind: CodeInterpreter
metadata: {name: a, namespace: b, creationTimestamp: null}
spec:
  ports: [{port: 8080, protocol: HTTP, pathPrefix: /, name: api}]
  template:
    image: picod:latest
    imagePullPolicy: IfNotPresent
    imagePullSecrets: [{name: s}]
    environment: [{name: A, value: b}]
    command: [picod]
    args: [--workspace=/root]
    resources: {limits: {cpu: 500m, memory: 512Mi}, requests: {cpu: 100m}}
    runtimeClassName: kuasar-vmm
    labels: {app: a}
    annotations: {note: text}
  sessionTimeout: 15m0s
  maxSessionDuration: 8h0m0s
  warmPoolSize: 2
  authMode: picod
  needInitialization: true
status:
  ready: true
  conditions:
    - {type: Ready, status: "True", reason: Reconciled, message: CodeInterpreter is ready, observedGeneration: 1, lastTransitionTime: "2026-01-01T00:00:00Z"}
`

const agentRuntime = `
apiVersion: runtime.agentcube.volcano.sh/v1alpha1
kind: AgentRuntime
metadata: {name: a}
spec:
  targetPort: [{port: 8080, protocol: HTTPS, pathPrefix: /, name: api}]
  podTemplate:
    labels: {app: a}
    annotations: {note: text}
    spec: {containers: [{name: c, image: x, resources: {}}]}
  sessionTimeout: 15m0s
  maxSessionDuration: 8h0m0s
status: {}
`

// A manifest survives being read strictly and written again.
func TestManifests(t *testing.T) {
	for name, test := range map[string]struct {
		manifest string
		resource any
	}{
		"CodeInterpreter": {codeInterpreter, &v1alpha1.CodeInterpreter{}},
		"AgentRuntime":    {agentRuntime, &v1alpha1.AgentRuntime{}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := yaml.UnmarshalStrict([]byte(test.manifest), test.resource); err != nil {
				t.Fatal(err)
			}
			written, err := yaml.Marshal(test.resource)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(generic(t, []byte(test.manifest)), generic(t, written)); diff != "" {
				t.Errorf("(-read +written):\n%s", diff)
			}
		})
	}
}

// generic decodes YAML without the types, leaving out the time that is always null.
func generic(t *testing.T, text []byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if metadata, ok := out["metadata"].(map[string]any); ok {
		delete(metadata, "creationTimestamp")
	}
	return out
}
