package template

import (
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Defaults of what a template leaves out.
const (
	DefaultNamespace   = "default"
	DefaultIdleTimeout = 15 * time.Minute
	DefaultMaxDuration = 8 * time.Hour
	DefaultWorkspace   = "/workspace"
	DefaultCPUMillis   = 1000
	DefaultMemoryBytes = 1 << 30
	DefaultDiskBytes   = 2 << 30
	DefaultProcesses   = 256
)

// resolver turns resources into templates, recording through its decoder what
// is impossible in them.
type resolver struct {
	*decoder
	defaultImage string
	kubernetes   bool // what needs it is there
}

func (r resolver) codeInterpreter(ci *v1alpha1.CodeInterpreter) Template {
	t := r.common(ci.ObjectMeta, ci.Spec.SessionTimeout, ci.Spec.MaxSessionDuration, ci.Spec.Isolation)
	r.network("spec.network", ci.Spec.Network)
	t.Ports = r.ports("spec.ports", ci.Spec.Ports)
	t.AuthMode = AuthPicoD
	switch ci.Spec.AuthMode {
	case v1alpha1.AuthModePicoD, "":
	case v1alpha1.AuthModeNone:
		t.AuthMode = AuthNone
	default:
		r.bad("spec.authMode", "must be picod or none, is %q", ci.Spec.AuthMode)
	}
	t.Strict = ci.Spec.Strict
	if t.Strict && t.AuthMode == AuthNone {
		r.bad("spec.strict", "needs authMode picod: without PicoD nothing checks signatures")
	}
	if n := ci.Spec.WarmPoolSize; n != nil {
		t.WarmPoolSize = int(*n)
		if *n < 0 {
			r.bad("spec.warmPoolSize", "must be 0 or more, is %d", *n)
		}
	}
	t.PauseAfter = r.pauseAfter("spec.pauseAfter", ci.Spec.PauseAfter, t.IdleTimeout)
	tmpl := ci.Spec.Template
	if tmpl == nil {
		r.bad("spec.template", "is missing")
		return t
	}
	const at = "spec.template"
	t.Image = tmpl.Image
	if t.Image == "" {
		t.Image = r.defaultImage
	}
	r.image(at+".image", t.Image)
	t.Labels = r.labels(at+".labels", tmpl.Labels)
	t.Env = r.env(at+".environment", tmpl.Environment)
	t.Resources = r.resources(at+".resources", tmpl.Resources)
	t.Resources.Processes = r.processes(at+".maxProcesses", tmpl.MaxProcesses)
	t.RunAsRoot = tmpl.RunAsRoot
	if tmpl.ReadOnlyRootFilesystem && !r.kubernetes {
		r.bad(at+".readOnlyRootFilesystem", "needs Kubernetes; what a sandbox here writes is in memory and goes with it")
	}
	t.Command, t.Args, t.Workspace = r.process(at, tmpl.Command, tmpl.Args, t.AuthMode)
	t.Preload = r.preload(at+".preload", tmpl.Preload, t.AuthMode)
	r.references(at, t)
	return t
}

func (r resolver) pauseAfter(at string, d *metav1.Duration, idle time.Duration) time.Duration {
	switch {
	case d == nil:
		return 0
	case d.Duration < 0:
		r.bad(at, "must be 0 or more, is %v", d.Duration)
	case idle > 0 && d.Duration >= idle:
		r.bad(at, "must be shorter than sessionTimeout, which is %v, is %v", idle, d.Duration)
	}
	return d.Duration
}

// Bounds of the list of modules.
const (
	maxPreload       = 64
	maxPreloadLength = 128
)

var module = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

func (r resolver) preload(at string, modules []string, mode AuthMode) []string {
	switch {
	case len(modules) > 0 && mode == AuthNone:
		r.bad(at, "needs authMode picod: without PicoD nothing imports the modules")
	case len(modules) > maxPreload:
		r.bad(at, "has more than %d modules", maxPreload)
	}
	for i, name := range modules {
		at := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case len(name) > maxPreloadLength || !module.MatchString(name):
			r.bad(at, "must be the name of a Python module, is %q", name)
		case slices.Contains(modules[:i], name):
			r.bad(at, "%q is there twice", name)
		}
	}
	return modules
}

// common resolves what both kinds have.
func (r resolver) common(meta metav1.ObjectMeta, idle, longest *metav1.Duration, isolation v1alpha1.Isolation) Template {
	t := Template{
		Namespace: meta.Namespace, Name: meta.Name, Workspace: DefaultWorkspace,
		IdleTimeout:  r.duration("spec.sessionTimeout", idle, DefaultIdleTimeout),
		MaxDuration:  r.duration("spec.maxSessionDuration", longest, DefaultMaxDuration),
		MinIsolation: string(isolation),
	}
	if t.Namespace == "" {
		t.Namespace = DefaultNamespace
	}
	if t.Name == "" {
		r.bad("metadata.name", "is missing")
	} else if problems := validation.IsDNS1123Subdomain(t.Name); len(problems) > 0 {
		r.bad("metadata.name", "%q is not a name of lower-case letters, digits, '-' and '.'", t.Name)
	}
	if problems := validation.IsDNS1123Label(t.Namespace); len(problems) > 0 {
		r.bad("metadata.namespace", "%q is not a name of lower-case letters, digits and '-'", t.Namespace)
	}
	if r.lines["spec"] == 0 {
		r.bad("spec", "is missing")
	}
	switch isolation {
	case "", v1alpha1.IsolationNone, v1alpha1.IsolationRunc, v1alpha1.IsolationGVisor, v1alpha1.IsolationKata:
	default:
		r.bad("spec.isolation", "must be none, runc, gvisor or kata, is %q", isolation)
	}
	return t
}

func (r resolver) duration(at string, d *metav1.Duration, byDefault time.Duration) time.Duration {
	if d == nil {
		return byDefault
	}
	if d.Duration <= 0 {
		r.bad(at, "must be more than 0, is %v", d.Duration)
	}
	return d.Duration
}

// network refuses what a sandbox here does not have: it would fail in the middle of
// a session otherwise.
func (r resolver) network(at string, n v1alpha1.Network) {
	switch n {
	case "", v1alpha1.NetworkNone:
	case v1alpha1.NetworkInternet, v1alpha1.NetworkAll:
		if r.kubernetes {
			return
		}
		r.bad(at, "%s needs Kubernetes; a sandbox here has none", n)
	default:
		r.bad(at, "must be none, internet or all, is %q", n)
	}
}

func (r resolver) ports(at string, in []v1alpha1.TargetPort) []Port {
	if len(in) == 0 {
		return []Port{{Path: "/", Protocol: string(v1alpha1.ProtocolHTTP), Port: sandbox.AgentPort}}
	}
	var out []Port
	for i, p := range in {
		at := fmt.Sprintf("%s[%d]", at, i)
		port := Port{Name: p.Name, Path: p.PathPrefix, Protocol: string(p.Protocol)}
		switch {
		case r.lines[at+".port"] == 0:
			r.bad(at+".port", "is missing")
		case p.Port < 1 || p.Port > math.MaxUint16:
			r.bad(at+".port", "must be from 1 to 65535, is %d", p.Port)
		default:
			port.Port = uint16(p.Port)
		}
		switch p.Protocol {
		case "":
			port.Protocol = string(v1alpha1.ProtocolHTTP)
		case v1alpha1.ProtocolHTTP, v1alpha1.ProtocolHTTPS:
		default:
			r.bad(at+".protocol", "must be HTTP or HTTPS, is %q", p.Protocol)
		}
		if port.Path == "" {
			port.Path = "/"
		} else if port.Path[0] != '/' {
			r.bad(at+".pathPrefix", "must begin with a slash, is %q", p.PathPrefix)
		}
		out = append(out, port)
	}
	return out
}

func (r resolver) image(at, image string) {
	switch {
	case image == "":
		r.bad(at, "is missing")
	case strings.ContainsAny(image, " \t\r\n") || len(image) > 512:
		r.bad(at, "is not an image reference")
	}
}

func (r resolver) labels(at string, in map[string]v1alpha1.LabelValue) map[string]string {
	if in == nil {
		return nil
	}
	out := make(map[string]string, len(in))
	for name, value := range in {
		if len(validation.IsQualifiedName(name)) > 0 || len(validation.IsValidLabelValue(string(value))) > 0 {
			r.bad(at+"."+name, "is not a valid label")
		}
		out[name] = string(value)
	}
	return out
}

func (r resolver) env(at string, in []corev1.EnvVar) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for i, e := range in {
		at := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case e.Name == "":
			r.bad(at+".name", "is missing")
		case strings.ContainsAny(e.Name, "=\x00"):
			r.bad(at+".name", "%q holds a character that a variable's name cannot have", e.Name)
		case strings.Contains(e.Value, "\x00"):
			r.bad(at+".value", "holds a NUL character")
		case e.ValueFrom != nil && !r.kubernetes:
			r.bad(at+".valueFrom", "needs Kubernetes; here give the value itself as \"value\"")
		}
		out[e.Name] = e.Value
	}
	if r.kubernetes {
		return nil
	}
	return out
}

// references refuses $(NAME) where Kubernetes would put in the value of a
// variable of this template: here the text would be taken as it is.
func (r resolver) references(at string, t Template) {
	check := func(where, text string) {
		for _, name := range slices.Sorted(maps.Keys(t.Env)) {
			if strings.Contains(text, "$("+name+")") {
				r.bad(where, "$(%s) is only replaced on Kubernetes; write the value", name)
			}
		}
	}
	for _, value := range t.Env {
		check(at, value)
	}
	for _, text := range append(t.Command, t.Args...) {
		check(at, text)
	}
}

func (r resolver) processes(at string, n *int32) int64 {
	if n == nil {
		return DefaultProcesses
	}
	if *n < 1 {
		r.bad(at, "must be 1 or more, is %d", *n)
	}
	return int64(*n)
}

// process decides what a CodeInterpreter's sandbox runs first. With authMode
// picod that is always AgentCube's own PicoD: of a command line that starts the
// PicoD of an image only the workspace counts.
func (r resolver) process(at string, command, args []string, mode AuthMode) (cmd, rest []string, workspace string) {
	if mode == AuthNone {
		r.ownCommand(at+".command", command)
		return command, args, DefaultWorkspace
	}
	var line []argument
	for i, text := range command {
		line = append(line, argument{text, fmt.Sprintf("%s.command[%d]", at, i)})
	}
	if len(line) > 0 {
		if path.Base(command[0]) != "picod" {
			r.bad(at+".command", "cannot be %q: with authMode picod the first process is PicoD; remove the command or set authMode to none", command[0])
			return nil, nil, DefaultWorkspace
		}
		line = line[1:]
	}
	for i, text := range args {
		line = append(line, argument{text, fmt.Sprintf("%s.args[%d]", at, i)})
	}
	return nil, nil, r.picod(line)
}

// ownCommand refuses a command that names no program. Without any, the entry point
// of the image serves.
func (r resolver) ownCommand(at string, command []string) {
	if len(command) > 0 && command[0] == "" {
		r.bad(at+"[0]", "is empty: it is the program to run")
	}
}

// argument is one word of a command line and the field it stands in.
type argument struct{ text, at string }

// picod reads the arguments of PicoD and returns its workspace.
func (r resolver) picod(line []argument) string {
	workspace := DefaultWorkspace
	for i := 0; i < len(line); i++ {
		arg := line[i]
		name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg.text, "-"), "-"), "=")
		if !strings.HasPrefix(arg.text, "-") || name != "workspace" && name != "port" && name != "bootstrap-key" {
			r.bad(arg.at, "%q is not an argument of PicoD (--workspace=<dir>, --port=8080)", arg.text)
			continue
		}
		if !hasValue {
			if i++; i == len(line) {
				r.bad(arg.at, "--%s has no value", name)
				break
			}
			value = line[i].text
		}
		switch {
		case name == "workspace" && !path.IsAbs(value):
			r.bad(arg.at, "--workspace must be an absolute path, is %q", value)
		case name == "workspace":
			workspace = path.Clean(value)
		case name == "port" && value != fmt.Sprint(sandbox.AgentPort):
			r.bad(arg.at, "--port must be %d, is %q", sandbox.AgentPort, value)
		}
	}
	return workspace
}
