package podspec

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/pod-security-admission/policy"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// Settings are the same for all Pods of an installation.
type Settings struct {
	// AgentImage is the image that has PicoD, from where it is copied into each Pod.
	AgentImage string
	// AgentPullPolicy is how that is pulled; "" is Kubernetes' default.
	AgentPullPolicy corev1.PullPolicy
	// PullSecrets are those of AgentImage. They have to be in the namespaces of templates.
	PullSecrets []corev1.LocalObjectReference
	// Home is the namespace where AgentCube itself runs, with its keys: there a template
	// can name nothing of the namespace, and no labels. Pods are labelled with it, so that
	// another AgentCube does not take them for its own. "" means that no template is
	// there, and that there is no other.
	Home string
}

// Extras are what a template says to Kubernetes alone. It is what Spec.Extras holds,
// as a pointer.
type Extras struct {
	// Kind and Name are the resource's, Namespace is where its Pods are.
	Kind, Namespace, Name string
	// Agent: PicoD is the first process of the first container.
	Agent bool
	// Labels and Annotations are put on the Pod. Those that have a meaning here win.
	Labels, Annotations map[string]string
	// Network is "none", "internet" or "all"; "" is "none".
	Network string
	// Pod is what to begin with: its first container is the one that Spec is about.
	Pod corev1.PodSpec
}

// ContainerName is that of a sandbox's first container.
const ContainerName = "code-interpreter"

// Names of what is added to a Pod.
const (
	agentDir       = "/.agentcube"
	agentPath      = agentDir + "/picod"
	agentVolume    = "agentcube"
	initContainer  = "agentcube"
	workVolume     = "agentcube-workspace"
	tempVolume     = "agentcube-tmp"
	ownVariables   = "PICOD_"
	stopSeconds    = int64(1)
	longestStop    = int64(30)
	agentSizeLimit = 64 << 20
)

// UserID is the user, and the group, that a sandbox runs as where its template does
// not say another.
const UserID = int64(sandbox.UserID)

// Builder builds Pods. It is safe for concurrent use.
type Builder struct {
	settings  Settings
	evaluator policy.Evaluator
}

// NewBuilder makes a Builder.
func NewBuilder(s Settings) (*Builder, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("make evaluator of Pods' security: %w", err)
	}
	return &Builder{settings: s, evaluator: evaluator}, nil
}

// Build is the Pod of a sandbox, without what belongs to one session alone: see Own.
// Its restart policy is Never. ErrBadTemplate when a template asks for what no sandbox
// may have.
func (b *Builder) Build(spec sandbox.Spec) (corev1.PodTemplateSpec, error) {
	x, err := extrasOf(spec)
	if err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	if err := b.allowed(x); err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	pod := *x.Pod.DeepCopy()
	c := &pod.Containers[0]
	c.Image = cmp.Or(spec.Image, c.Image)
	c.Env = slices.Concat(c.Env, missing(c.Env, spec.Env))
	for _, containers := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range containers {
			limit(&containers[i], spec.Resources)
		}
	}
	if x.Agent {
		if err := addAgent(b.settings, &pod, spec); err != nil {
			return corev1.PodTemplateSpec{}, err
		}
	} else if len(spec.Command)+len(spec.Args) > 0 {
		c.Command, c.Args = slices.Clone(spec.Command), slices.Clone(spec.Args)
	}
	lockDown(&pod, spec.RunAsRoot)
	pod.RestartPolicy = corev1.RestartPolicyNever
	t := corev1.PodTemplateSpec{Spec: pod}
	t.Labels, t.Annotations = labels(b.settings.Home, x), foreign(x.Annotations)
	if err := b.checkSecurity(t); err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	return t, nil
}

// extrasOf are the Extras of a spec, or what a spec without says.
func extrasOf(spec sandbox.Spec) (Extras, error) {
	x, ok := spec.Extras.(*Extras)
	if spec.Extras != nil && !ok {
		return Extras{}, fmt.Errorf("%w: its extras are %T", sandbox.ErrInvalidSpec, spec.Extras)
	}
	if !ok || x == nil {
		return Extras{
			Agent: !spec.OwnServer && len(spec.Command)+len(spec.Args) == 0,
			Pod:   corev1.PodSpec{Containers: []corev1.Container{{Name: ContainerName}}},
		}, nil
	}
	if len(x.Pod.Containers) == 0 {
		return Extras{}, fmt.Errorf("%w: its Pod has no container", sandbox.ErrInvalidSpec)
	}
	return *x, nil
}

func labels(home string, x Extras) map[string]string {
	out := foreign(x.Labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, Selector(home))
	out[LabelNetwork] = cmp.Or(x.Network, "none")
	out[labelManager] = "agentcube-workload-manager"
	if x.Name != "" {
		maps.Copy(out, MadeFrom(x.Kind, x.Name))
		out[labelWorkload] = labelValue(x.Name)
	}
	return out
}

// addAgent makes PicoD the first process of the first container: an init container
// copies it into a volume, so that any image will do.
func addAgent(s Settings, pod *corev1.PodSpec, spec sandbox.Spec) error {
	workspace := path.Clean(cmp.Or(spec.Workspace, "/workspace"))
	if workspace == agentDir || strings.HasPrefix(workspace, agentDir+"/") {
		return fmt.Errorf("%w: its workspace cannot be in %s", sandbox.ErrBadTemplate, agentDir)
	}
	yes := true
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: agentVolume, VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(agentSizeLimit, resource.BinarySI)},
	}})
	mount := corev1.VolumeMount{Name: agentVolume, MountPath: agentDir}
	pod.InitContainers = append([]corev1.Container{{
		Name: initContainer, Image: s.AgentImage, ImagePullPolicy: s.AgentPullPolicy,
		Command: []string{"/picod", "install", agentPath}, VolumeMounts: []corev1.VolumeMount{mount},
		Resources: corev1.ResourceRequirements{
			Requests: quantities(10, 16<<20, 0),
			Limits:   quantities(pod.Containers[0].Resources.Limits.Cpu().MilliValue(), 128<<20, 0),
		},
		SecurityContext:          &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}}, pod.InitContainers...)
	for _, secret := range s.PullSecrets {
		if !slices.Contains(pod.ImagePullSecrets, secret) {
			pod.ImagePullSecrets = append(pod.ImagePullSecrets, secret)
		}
	}
	mount.ReadOnly = true
	c := &pod.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, mount)
	c.Command = []string{agentPath}
	c.Args = []string{
		"--port", fmt.Sprint(sandbox.AgentPort), "--workspace", verbatim(workspace), "--cgroup-dir", "",
		"--python-zygote", "--preload", verbatim(strings.Join(spec.Preload, ",")),
	}
	c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return strings.HasPrefix(e.Name, ownVariables) })
	c.Env = append(c.Env,
		corev1.EnvVar{Name: ownVariables + "BOOTSTRAP_KEY", Value: spec.BootstrapKey},
		corev1.EnvVar{Name: ownVariables + "SANDBOX_ID", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.uid"},
		}})
	addWorkspace(pod, workspace, spec)
	return nil
}

// verbatim keeps Kubernetes from reading $(NAME) in a text as the value of a variable.
func verbatim(text string) string { return strings.ReplaceAll(text, "$", "$$") }

// addWorkspace makes the working directory, and /tmp where nothing else can be
// written, the user's.
func addWorkspace(pod *corev1.PodSpec, workspace string, spec sandbox.Spec) {
	c := &pod.Containers[0]
	writable := func(name, at string) {
		at = path.Clean(at)
		if at == "/" || slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return path.Clean(m.MountPath) == at }) {
			return
		}
		dir := &corev1.EmptyDirVolumeSource{}
		if spec.Resources.DiskBytes > 0 {
			dir.SizeLimit = resource.NewQuantity(spec.Resources.DiskBytes, resource.BinarySI)
		}
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: dir}})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: at})
	}
	writable(workVolume, workspace)
	if c.SecurityContext != nil && c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem {
		writable(tempVolume, "/tmp")
	}
}

// literals is an environment in a stable order.
func literals(env map[string]string) []corev1.EnvVar {
	var out []corev1.EnvVar
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, corev1.EnvVar{Name: name, Value: verbatim(env[name])})
	}
	return out
}

// missing are the variables of env that there does not have.
func missing(there []corev1.EnvVar, env map[string]string) []corev1.EnvVar {
	return slices.DeleteFunc(literals(env), func(e corev1.EnvVar) bool {
		return slices.ContainsFunc(there, func(t corev1.EnvVar) bool { return t.Name == e.Name })
	})
}

// What bounds a sandbox whose spec does not say.
const (
	defaultMillis = 1000
	defaultMemory = 1 << 30
	defaultDisk   = 2 << 30
)

// limit bounds a container by the spec where its own resources do not. Where nothing
// is said about requests, a part of the limits is asked for: most sandboxes stay far
// below theirs.
func limit(c *corev1.Container, r sandbox.Resources) {
	limits := quantities(cmp.Or(r.CPUMillis, defaultMillis), cmp.Or(r.MemoryBytes, defaultMemory), cmp.Or(r.DiskBytes, defaultDisk))
	for name, asked := range c.Resources.Requests {
		if q, bounded := limits[name]; bounded && q.Cmp(asked) < 0 {
			limits[name] = asked
		}
	}
	maps.Copy(limits, c.Resources.Limits)
	c.Resources.Limits = limits
	if len(c.Resources.Requests) > 0 {
		return
	}
	c.Resources.Requests = quantities(
		max(limits.Cpu().MilliValue()/10, 1), max(limits.Memory().Value()/4, 1), max(limits.StorageEphemeral().Value()/8, 1))
}

// quantities of CPU, memory and disk; 0 leaves one out.
func quantities(millis, memory, disk int64) corev1.ResourceList {
	out := corev1.ResourceList{}
	if millis > 0 {
		out[corev1.ResourceCPU] = *resource.NewMilliQuantity(millis, resource.DecimalSI)
	}
	if memory > 0 {
		out[corev1.ResourceMemory] = *resource.NewQuantity(memory, resource.BinarySI)
	}
	if disk > 0 {
		out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(disk, resource.BinarySI)
	}
	return out
}
