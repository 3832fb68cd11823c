package podspec_test

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"pgregory.net/rapid"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// forbidden is what Kubernetes says at a level of its Pod security standards.
func forbidden(t rapid.TB, level api.Level, pod corev1.PodTemplateSpec) string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(at, &pod.ObjectMeta, &pod.Spec))
	if result.Allowed {
		return ""
	}
	return result.ForbiddenReason() + ": " + result.ForbiddenDetail()
}

// TestLevels: whatever a CodeInterpreter says, its Pods are what Kubernetes calls
// restricted, or, where user code is root, baseline.
func TestLevels(t *testing.T) {
	b := newBuilder(t)
	rapid.Check(t, func(r *rapid.T) {
		spec := anySpec(r)
		pod, err := b.Build(spec)
		if err != nil {
			r.Fatal(err)
		}
		level := api.LevelRestricted
		if spec.RunAsRoot {
			level = api.LevelBaseline
		}
		if why := forbidden(r, level, pod); why != "" {
			r.Errorf("Pod is not %s: %s", level, why)
		}
	})
}

const agentHead = `
apiVersion: runtime.agentcube.volcano.sh/v1alpha1
kind: AgentRuntime
metadata: {name: agent, namespace: `

// agentOf is an AgentRuntime in a namespace, of a Pod's spec.
func agentOf(namespace, pod string) string {
	return agentHead + namespace + "}\nspec: {targetPort: [{port: 8080, protocol: HTTP}], podTemplate: {spec: " + pod + "}}"
}

// in puts what a container says into the first container, an init container and an
// ephemeral one, beside a container that is fine.
func in(container string) map[string]string {
	fine, bad := "{name: c, image: x}", "{name: bad, image: x, "+container+"}"
	return map[string]string{
		"first":     "{containers: [" + bad + "]}",
		"second":    "{containers: [" + fine + ", " + bad + "]}",
		"init":      "{containers: [" + fine + "], initContainers: [" + bad + "]}",
		"ephemeral": "{containers: [" + fine + "], ephemeralContainers: [" + bad + "]}",
	}
}

// TestHostileAgents: what would let a sandbox out, whoever asks for it.
func TestHostileAgents(t *testing.T) {
	const c = "containers: [{name: c, image: x}]"
	hostile := map[string]map[string]string{}
	for name, pod := range map[string]string{
		"hostPath":          "volumes: [{name: v, hostPath: {path: /}}]",
		"nfs":               "volumes: [{name: v, nfs: {server: s, path: /}}]",
		"iscsi":             "volumes: [{name: v, iscsi: {targetPortal: p, iqn: q, lun: 0}}]",
		"flexVolume":        "volumes: [{name: v, flexVolume: {driver: d/e}}]",
		"hostNetwork":       "hostNetwork: true",
		"hostPID":           "hostPID: true",
		"hostIPC":           "hostIPC: true",
		"sysctl":            "securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}",
		"seccomp of Pod":    "securityContext: {seccompProfile: {type: Unconfined}}",
		"apparmor of Pod":   "securityContext: {appArmorProfile: {type: Unconfined}}",
		"selinux of Pod":    "securityContext: {seLinuxOptions: {type: spc_t}}",
		"host process":      "securityContext: {windowsOptions: {hostProcess: true}}",
		"node":              "nodeName: control-plane",
		"rank":              "priorityClassName: system-node-critical",
		"token":             "automountServiceAccountToken: true, serviceAccountName: admin",
		"projected token":   "volumes: [{name: v, projected: {sources: [{configMap: {name: m}}, {serviceAccountToken: {path: t}}]}}]",
		"token for another": "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t, audience: vault}}]}}]",
		"Pod's certificate": "volumes: [{name: v, projected: {sources: [{podCertificate: {signerName: s/s, keyType: ED25519, credentialBundlePath: b}}]}}]",
	} {
		hostile[name] = map[string]string{"Pod": "{" + c + ", " + pod + "}"}
	}
	for name, container := range map[string]string{
		"privileged":      "securityContext: {privileged: true}",
		"capability":      "securityContext: {capabilities: {add: [SYS_ADMIN]}}",
		"all of them":     "securityContext: {capabilities: {add: [ALL]}}",
		"raw sockets":     "securityContext: {capabilities: {drop: [ALL], add: [NET_RAW]}}",
		"hostPort":        "ports: [{containerPort: 80, hostPort: 80}]",
		"seccomp":         "securityContext: {seccompProfile: {type: Unconfined}}",
		"apparmor":        "securityContext: {appArmorProfile: {type: Unconfined}}",
		"procMount":       "securityContext: {procMount: Unmasked}",
		"probe elsewhere": "livenessProbe: {httpGet: {host: 169.254.169.254, port: 80}}",
		"hook elsewhere":  "lifecycle: {postStart: {httpGet: {host: 169.254.169.254, port: 80}}}",
	} {
		hostile[name] = in(container)
	}
	for name, pods := range hostile {
		for where, pod := range pods {
			t.Run(name+" "+where, func(t *testing.T) {
				_, err := newBuilder(t).Build(specOf(t, agentOf("team", pod)))
				if !errors.Is(err, sandbox.ErrBadTemplate) {
					t.Errorf("Build = %v, want ErrBadTemplate", err)
				}
			})
		}
	}
}

// TestAgentsMayName: what is in their namespace is there for its templates.
func TestAgentsMayName(t *testing.T) {
	for name, pod := range map[string]string{
		"secret":    "{containers: [{name: c, image: x}], volumes: [{name: v, secret: {secretName: s}}]}",
		"claim":     "{containers: [{name: c, image: x}], volumes: [{name: v, persistentVolumeClaim: {claimName: p}}]}",
		"projected": "{containers: [{name: c, image: x}], volumes: [{name: v, projected: {sources: [{secret: {name: s}}]}}]}",
		"account":   "{containers: [{name: c, image: x}], serviceAccountName: agent}",
		"variables": "{containers: [{name: c, image: x, envFrom: [{secretRef: {name: s}}], env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]}",
		"device":    "{containers: [{name: c, image: x, resources: {limits: {nvidia.com/gpu: '1'}}}]}",
		"image":     "{containers: [{name: c, image: x}], volumes: [{name: v, image: {reference: x}}]}",
		"users":     "{containers: [{name: c, image: x}], hostUsers: false}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newBuilder(t).Build(specOf(t, agentOf("team", pod))); err != nil {
				t.Errorf("Build = %v", err)
			}
			// But not where AgentCube's own things are.
			_, err := newBuilder(t).Build(specOf(t, agentOf("agentcube-system", pod)))
			if harmless := name == "device" || name == "image" || name == "users"; harmless {
				if err != nil {
					t.Errorf("Build at home = %v", err)
				}
			} else if !errors.Is(err, sandbox.ErrBadTemplate) || !strings.Contains(err.Error(), "agentcube-system") {
				t.Errorf("Build at home = %v, want ErrBadTemplate that names it", err)
			}
		})
	}
}

// TestLabelsAtHome: with them a sandbox could be taken for the Router.
func TestLabelsAtHome(t *testing.T) {
	x := &podspec.Extras{
		Namespace: "agentcube-system", Agent: true, Labels: map[string]string{"app": "agentcube-router"},
		Pod: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}},
	}
	if _, err := newBuilder(t).Build(sandbox.Spec{Extras: x}); !errors.Is(err, sandbox.ErrBadTemplate) {
		t.Errorf("Build = %v, want ErrBadTemplate", err)
	}
	x.Labels = nil
	if _, err := newBuilder(t).Build(sandbox.Spec{Extras: x}); err != nil {
		t.Errorf("Build without labels = %v", err)
	}
}
