package crd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/internal/template"
)

// verdict says how a document fares. Both readers must agree unless an exception
// says why they do not.
type verdict struct {
	kind, spec string
	// says is part of what the API server answers; empty means that it takes it.
	says string
	// exception says why one machine decides otherwise.
	exception string
}

const ci, ar = "CodeInterpreter", "AgentRuntime"

func image(fields string) string { return "template: {image: x, " + fields + "}" }

func container(fields string) string {
	return "targetPort: [{port: 80}], podTemplate: {spec: {containers: [{name: c, image: x, command: [serve], " + fields + "}]}}"
}

func many(n int, each string) string {
	var all []string
	for i := range n {
		all = append(all, strings.ReplaceAll(each, "%", fmt.Sprint(i+1)))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// minimum is what a CodeInterpreter must have.
const minimum = ", template: {image: x}"

// forms: what is there, what is not, and of what type.
func forms() []verdict {
	return []verdict{
		{kind: ci, spec: "", says: "spec: Required"},
		{kind: ci, spec: "warmPoolSize: 1", says: "spec.template: Required"},
		{kind: ci, spec: "template: {imagee: x, image: x}", says: `unknown field "spec.template.imagee"`},
		{kind: ci, spec: "sessionTimeOut: 1m" + minimum, says: `unknown field "spec.sessionTimeOut"`},
		{kind: ci, spec: image("environment: [{name: A, val: b}]"), says: `unknown field "spec.template.environment[0].val"`},
		{kind: ci, spec: image("environment: [{name: A, value: 8080}]"), says: "must be of type string"},
		{kind: ci, spec: image("args: --workspace=/root"), says: "must be of type array"},
		{kind: ci, spec: image("runAsRoot: 'yes'"), says: "must be of type boolean"},
	}
}

func times() []verdict {
	const duration, above = "must be a duration such as 90s, 15m or 8h", "must be more than 0"
	return []verdict{
		{kind: ci, spec: "sessionTimeout: 1h30m0.5s, maxSessionDuration: .5h, pauseAfter: 100us" + minimum},
		{kind: ci, spec: "sessionTimeout: 900" + minimum, says: "must be of type string"},
		{kind: ci, spec: "sessionTimeout: soon" + minimum, says: `spec.sessionTimeout: Invalid value: "soon": ` + duration},
		{kind: ci, spec: "sessionTimeout: ''" + minimum, says: duration},
		{kind: ci, spec: "sessionTimeout: 1d" + minimum, says: duration},
		{kind: ci, spec: "sessionTimeout: '0'" + minimum, says: `spec.sessionTimeout: Invalid value: "0": ` + above},
		{kind: ci, spec: "sessionTimeout: 0.1ns" + minimum, says: above},
		{kind: ci, spec: "maxSessionDuration: -8h" + minimum, says: `spec.maxSessionDuration: Invalid value: "-8h": ` + above},
		{kind: ci, spec: "maxSessionDuration: 9999999999h" + minimum, says: "spec.maxSessionDuration: Invalid value"},
		{kind: ci, spec: "pauseAfter: -1s" + minimum, says: `spec.pauseAfter: Invalid value: "-1s": must be 0 or more`},
		{kind: ci, spec: "pauseAfter: soon" + minimum, says: `is invalid: spec.pauseAfter: Invalid value: "soon": ` + duration},
		{kind: ci, spec: "sessionTimeout: soon, pauseAfter: 1m" + minimum, says: `is invalid: spec.sessionTimeout: Invalid value: "soon": ` + duration},
		{kind: ci, spec: "pauseAfter: 0s" + minimum},
		{kind: ci, spec: "pauseAfter: 14m59s" + minimum},
		{kind: ci, spec: "pauseAfter: 15m" + minimum, says: "spec.pauseAfter: Invalid value: must be shorter than sessionTimeout"},
		{kind: ci, spec: "pauseAfter: 60s, sessionTimeout: 1m" + minimum, says: "must be shorter than sessionTimeout"},
		{kind: ar, spec: container("") + ", sessionTimeout: 0s", says: above},
		{kind: ar, spec: container("") + ", maxSessionDuration: long", says: duration},
	}
}

func ports() []verdict {
	return []verdict{
		{kind: ci, spec: "ports: [{port: 8080, pathPrefix: /a}, {port: 8080, pathPrefix: /b}, {port: 1}, {port: 65535}]" + minimum},
		{kind: ci, spec: "ports: [{port: 0}]" + minimum, says: "spec.ports[0].port: Invalid value: 0"},
		{kind: ci, spec: "ports: [{port: 65536}]" + minimum, says: "less than or equal to 65535"},
		{kind: ci, spec: "ports: [{name: x}]" + minimum, says: "spec.ports[0].port: Required"},
		{kind: ci, spec: "ports: eighty" + minimum, says: "must be of type array"},
		{kind: ci, spec: "ports: [{port: 1, protocol: TCP}]" + minimum, says: `supported values: "HTTP", "HTTPS"`},
		{kind: ci, spec: "ports: [{port: 1, pathPrefix: api}]" + minimum, says: `spec.ports[0].pathPrefix: Invalid value: "api": must begin with a slash`},
		{kind: ar, spec: strings.Replace(container(""), "80", "0", 1), says: "spec.targetPort[0].port"},
		{kind: ar, spec: "podTemplate: {spec: {containers: [{name: c, image: x, command: [serve]}]}}", says: "spec.targetPort: Required"},
	}
}

func sandboxes() []verdict {
	return []verdict{
		{kind: ci, spec: "template: {image: two words}", says: `spec.template.image: Invalid value: "two words": is not an image reference`},
		{kind: ci, spec: "template: {image: \"x\\ny\"}", says: "is not an image reference"},
		{kind: ci, spec: "template: {image: " + strings.Repeat("x", 513) + "}", says: "Too long"},
		{kind: ci, spec: image("labels: {team: a, example.org/x: '1', empty: ''}")},
		{kind: ci, spec: image("labels: {not a label: x}"), says: "spec.template.labels: Invalid value: has a name that is not valid for a label"},
		{kind: ci, spec: image("labels: {a: not a value}"), says: `spec.template.labels[a]: Invalid value: "not a value": is not valid for a label`},
		{kind: ci, spec: image("labels: {a: " + strings.Repeat("x", 64) + "}"), says: "Too long"},
		{kind: ci, spec: image("environment: [{name: A}, {name: A, value: again}]")},
		{kind: ci, spec: image("environment: [{value: nameless}]"), says: "spec.template.environment[0].name: Required"},
		{kind: ci, spec: image("environment: [{name: ''}]"), says: "spec.template.environment: Invalid value: has a variable without a name"},
		{kind: ci, spec: image("maxProcesses: 0"), says: "spec.template.maxProcesses: Invalid value: 0"},
		{kind: ar, spec: container("") + ", maxProcesses: 0", says: "spec.maxProcesses: Invalid value: 0"},
		{kind: ci, spec: image("resources: {limits: {cpu: 1, memory: 1Gi, ephemeral-storage: 1e9}, requests: {cpu: 0, memory: '0'}}")},
		{kind: ci, spec: image("resources: {limits: {cpu: lots}}"), says: "spec.template.resources.limits.cpu: Invalid value"},
		{kind: ci, spec: image("resources: {limits: {memory: '0'}}"), says: "spec.template.resources: Invalid value: limits must be more than 0"},
		{kind: ci, spec: image("resources: {limits: {cpu: 0}}"), says: "limits must be more than 0"},
		{kind: ci, spec: image("resources: {limits: {ephemeral-storage: -1Gi}}"), says: "limits must be more than 0"},
		{kind: ci, spec: image("resources: {requests: {memory: -1Gi}}"), says: "requests must be 0 or more"},
		{kind: ci, spec: image("preload: [numpy, xml.etree.ElementTree, _x1]")},
		{kind: ci, spec: image("preload: numpy"), says: "must be of type array"},
		{kind: ci, spec: image("preload: ['os; import sys']"), says: `spec.template.preload[0]: Invalid value: "os; import sys": must be the name of a Python module`},
		{kind: ci, spec: image("preload: ['']"), says: "must be the name of a Python module"},
		{kind: ci, spec: image("preload: [a..b]"), says: "must be the name of a Python module"},
		{kind: ci, spec: image("preload: [\"a\\n\"]"), says: "must be the name of a Python module"},
		{kind: ci, spec: image("preload: [numpy, numpy]"), says: "spec.template.preload[1]: Duplicate value"},
		{kind: ci, spec: image("preload: [" + strings.Repeat("x", 129) + "]"), says: "Too long"},
		{kind: ci, spec: image("preload: " + many(64, "m%"))},
		{kind: ci, spec: image("preload: " + many(65, "m%")), says: "must have at most 64 items"},
	}
}

func policies() []verdict {
	return []verdict{
		{kind: ci, spec: "warmPoolSize: -1" + minimum, says: "spec.warmPoolSize: Invalid value: -1"},
		{kind: ci, spec: "warmPoolSize: 99999999999" + minimum, says: "must be of type integer with format int32 in spec.warmPoolSize"},
		{kind: ci, spec: "authMode: oauth" + minimum, says: `supported values: "picod", "none"`},
		{kind: ci, spec: "isolation: strong" + minimum, says: `supported values: "none", "runc", "gvisor", "kata"`},
		{kind: ci, spec: "isolation: kata, strict: true" + minimum},
		{kind: ci, spec: "network: none" + minimum},
		{kind: ci, spec: "network: open" + minimum, says: `supported values: "none", "internet", "all"`},
		{kind: ar, spec: container("") + ", network: none"},
		{kind: ar, spec: container("") + ", network: open", says: `supported values: "none", "internet", "all"`},
		{kind: ci, spec: "strict: true, authMode: none, " + image("command: [serve]"), says: "spec.strict: Invalid value: needs authMode picod"},
		{kind: ci, spec: "strict: false, authMode: none, " + image("command: [serve], preload: []")},
		{kind: ci, spec: "authMode: none, " + image("command: [serve], preload: [numpy]"), says: "spec.template.preload: Invalid value: needs authMode picod"},
		{kind: ar, spec: container("") + ", isolation: strong", says: "supported values"},
	}
}

func pods() []verdict {
	return []verdict{
		{kind: ar, spec: "targetPort: [{port: 80}]", says: "spec.podTemplate: Required"},
		{kind: ar, spec: "targetPort: [{port: 80}], podTemplate: {spec: {}}", says: "spec.podTemplate.spec.containers: Required"},
		{kind: ar, spec: "targetPort: [{port: 80}], podTemplate: {spec: {containers: []}}", says: "has no container"},
		{kind: ar, spec: "targetPort: [{port: 80}], podTemplate: {spec: {containers: [{name: c, command: [serve]}]}}", says: "a container has no image"},
		{kind: ar, spec: container("portss: []"), says: `unknown field "spec.podTemplate.spec.containers[0].portss"`},
		{kind: ar, spec: container("") + ", ports: [{port: 80}]", says: `unknown field "spec.ports"`},
	}
}

// exceptions are the differences; docs/templates.md tells of them.
func exceptions() []verdict {
	const kubernetes = "Kubernetes has it"
	const later = "it is found when the Pod is made: a rule for text of any length is beyond what rules may cost"
	const enum = "the definition is that of earlier versions, where the empty text is no value"
	const bound = "rules need bounds to be within what they may cost"
	return []verdict{
		{kind: ci, spec: image("command: [/bin/sh, -c, exec picod]"), exception: "the image may start PicoD in its own way, as with earlier versions"},
		{kind: ci, spec: image("args: [serve]"), exception: "they may be for a PicoD of the image"},
		{kind: ci, spec: "authMode: none" + minimum},
		{kind: ci, spec: image("environment: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"), exception: kubernetes},
		{kind: ci, spec: image("environment: [{name: A, value: x}, {name: B, value: $(A)}]"), exception: kubernetes},
		{kind: ci, spec: image("resources: {limits: {nvidia.com/gpu: 1}}"), exception: kubernetes},
		{kind: ci, spec: image("resources: {claims: [{name: c}]}"), exception: kubernetes},
		{kind: ci, spec: image("environment: [{name: A=B}]"), exception: later},
		{kind: ci, spec: "network: internet" + minimum, exception: kubernetes},
		{kind: ar, spec: container("") + ", network: all", exception: kubernetes},
		{kind: ci, spec: image("readOnlyRootFilesystem: true"), exception: kubernetes},
		{kind: ar, spec: strings.Replace(container(""), "command: [serve], ", "", 1)},
		{kind: ar, spec: container("volumeMounts: [{name: v, mountPath: /v}], envFrom: [{configMapRef: {name: c}}], securityContext: {privileged: true}"), exception: kubernetes},
		{kind: ar, spec: "targetPort: [{port: 80}], podTemplate: {spec: {initContainers: [{name: i, image: x}], hostNetwork: true, volumes: [{name: v, emptyDir: {}}], " +
			"containers: [{name: c, image: x, command: [serve]}, {name: d, image: x}]}}", exception: kubernetes},
		{kind: ar, spec: container("resources: {limits: {memory: '0'}}"), exception: "a Pod may say so"},
		{kind: ar, spec: container("resources: {limits: {memory: -1Gi}}"), exception: later},
		{kind: ar, spec: container("env: [{name: ''}]"), exception: later},
		{kind: ar, spec: strings.Replace(container(""), "image: x", "image: two words", 1), exception: later},

		{kind: ci, spec: "ports: [{port: 80}, {port: 80}]" + minimum, says: "the same port is there twice", exception: "files with it are in use; it has no effect"},
		{kind: ar, spec: container("env: [{name: A}, {name: A}]"), says: "Duplicate value", exception: "the variables of a Pod are told apart by name"},
		{kind: ci, spec: "ports: [{port: 80, pathPrefix: /" + strings.Repeat("x", 2048) + "}]" + minimum, says: "Too long", exception: bound},
		{kind: ci, spec: "sessionTimeout: " + strings.Repeat("0", 62) + "15m" + minimum, says: "Too long", exception: bound},
		{kind: ci, spec: "ports: " + many(101, "{port: %}") + minimum, says: "must have at most 100 items", exception: bound},
		{kind: ci, spec: image("environment: " + many(1001, "{name: A%}")), says: "must have at most 1000 items", exception: bound},
		{kind: ci, spec: image("labels: {" + strings.Trim(many(65, "l%: x"), "[]") + "}"), says: "must have at most 64 items", exception: bound},
		{kind: ci, spec: "ports: [{port: 1, protocol: ''}]" + minimum, says: "Unsupported value", exception: enum},
		{kind: ci, spec: "authMode: ''" + minimum, says: "Unsupported value", exception: enum},
		{kind: ci, spec: "isolation: ''" + minimum, says: "Unsupported value", exception: enum},
		{kind: ci, spec: "network: ''" + minimum, says: "Unsupported value", exception: enum},
		{kind: ar, spec: "targetPort: [{port: 80}], podTemplate: {spec: {containers: [{image: x, command: [serve]}]}}", says: "name: Required", exception: "a Pod needs it"},
	}
}

// TestVerdicts: each document fares on the API server as the table says, and on
// one machine the same, or the opposite where there is an exception.
func TestVerdicts(t *testing.T) {
	for _, v := range slices.Concat(forms(), times(), ports(), sandboxes(), policies(), pods(), exceptions()) {
		text := head(v.kind)
		if v.spec != "" {
			text += "spec: {" + v.spec + "}\n"
		}
		_, err := submit(t, text)
		switch {
		case v.says == "" && err != nil:
			t.Errorf("%.200s\n  the API server refuses it: %v", v.spec, err)
		case v.says != "" && (err == nil || !strings.Contains(err.Error(), v.says)):
			t.Errorf("%.200s\n  the API server says %v, want %q", v.spec, err, v.says)
		}
		_, local := template.Parse("f.yaml", []byte(text), "default:latest")
		if want := (v.says == "") == (v.exception == ""); (local == nil) != want {
			t.Errorf("%.200s\n  on one machine: %v; the API server: %v", v.spec, local, err)
		}
	}
}
