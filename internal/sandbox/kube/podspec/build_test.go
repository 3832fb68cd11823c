package podspec_test

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// anySpec is a spec such as CodeInterpreters have.
func anySpec(r *rapid.T) sandbox.Spec {
	words := rapid.StringMatching(`[a-z]([a-z0-9]{0,8})`)
	some := func(what string) map[string]string { return rapid.MapOfN(words, words, 0, 4).Draw(r, what) }
	c := corev1.Container{
		Name:            podspec.ContainerName,
		ImagePullPolicy: rapid.SampledFrom([]corev1.PullPolicy{"", corev1.PullAlways, corev1.PullIfNotPresent}).Draw(r, "pull policy"),
	}
	for _, name := range rapid.SliceOfNDistinct(words, 0, 4, rapid.ID).Draw(r, "variables") {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: words.Draw(r, "value")})
	}
	if rapid.Bool().Draw(r, "requests") {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}
	}
	if rapid.Bool().Draw(r, "read-only root") {
		yes := true
		c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
	}
	x := &podspec.Extras{
		Kind: "CodeInterpreter", Namespace: words.Draw(r, "namespace"), Name: words.Draw(r, "name"), Agent: rapid.Bool().Draw(r, "agent"),
		Labels: some("labels"), Annotations: some("annotations"),
		Network: rapid.SampledFrom([]string{"", "none", "internet", "all"}).Draw(r, "network"),
		Pod:     corev1.PodSpec{Containers: []corev1.Container{c}, NodeSelector: some("node selector"), PriorityClassName: words.Draw(r, "priority")},
	}
	if rapid.Bool().Draw(r, "class") {
		class := words.Draw(r, "runtime class")
		x.Pod.RuntimeClassName = &class
	}
	return sandbox.Spec{
		Image: words.Draw(r, "image"), Env: some("environment"), RunAsRoot: rapid.Bool().Draw(r, "root"),
		Workspace:    rapid.SampledFrom([]string{"", "/", "/root", "/tmp", "/workspace", "/a/b"}).Draw(r, "workspace"),
		BootstrapKey: words.Draw(r, "key"), Preload: rapid.SliceOfN(words, 0, 3).Draw(r, "preload"), Extras: x,
		Resources: sandbox.Resources{
			CPUMillis:   rapid.Int64Range(0, 4000).Draw(r, "cpu"),
			MemoryBytes: rapid.Int64Range(0, 4<<30).Draw(r, "memory"),
			DiskBytes:   rapid.Int64Range(0, 4<<30).Draw(r, "disk"),
		},
	}
}

func pool(t rapid.TB, b *podspec.Builder, spec sandbox.Spec) string {
	t.Helper()
	pod, err := b.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	name, err := podspec.Pool(pod)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// copied is the same spec, in memory of its own.
func copied(s sandbox.Spec) (sandbox.Spec, *podspec.Extras) {
	x := *s.Extras.(*podspec.Extras)
	x.Pod = *x.Pod.DeepCopy()
	x.Labels, x.Annotations, s.Env = maps.Clone(x.Labels), maps.Clone(x.Annotations), maps.Clone(s.Env)
	s.Preload = slices.Clone(s.Preload)
	s.Extras = &x
	return s, &x
}

// TestPool: replicas that have never met find the same pool, and no two templates
// share one.
func TestPool(t *testing.T) {
	b := newBuilder(t)
	same := map[string]func(*sandbox.Spec){
		"id":       func(s *sandbox.Spec) { s.ID += "x" },
		"labels":   func(s *sandbox.Spec) { s.Labels = map[string]string{"a": "b"} },
		"demanded": func(s *sandbox.Spec) { s.MinIsolation += "x" },
	}
	other := map[string]func(*sandbox.Spec, *podspec.Extras){
		"image":         func(s *sandbox.Spec, _ *podspec.Extras) { s.Image += "x" },
		"environment":   func(s *sandbox.Spec, _ *podspec.Extras) { s.Env = map[string]string{"new": "x"} },
		"cpu":           func(s *sandbox.Spec, _ *podspec.Extras) { s.Resources.CPUMillis += 5000 },
		"memory":        func(s *sandbox.Spec, _ *podspec.Extras) { s.Resources.MemoryBytes += 5 << 30 },
		"disk":          func(s *sandbox.Spec, _ *podspec.Extras) { s.Resources.DiskBytes += 5 << 30 },
		"root":          func(s *sandbox.Spec, _ *podspec.Extras) { s.RunAsRoot = !s.RunAsRoot },
		"agent":         func(_ *sandbox.Spec, x *podspec.Extras) { x.Agent = !x.Agent },
		"kind":          func(_ *sandbox.Spec, x *podspec.Extras) { x.Kind += "x" },
		"name":          func(_ *sandbox.Spec, x *podspec.Extras) { x.Name += "x" },
		"label":         func(_ *sandbox.Spec, x *podspec.Extras) { x.Labels = map[string]string{"NEW": "x"} },
		"annotation":    func(_ *sandbox.Spec, x *podspec.Extras) { x.Annotations = map[string]string{"NEW": "x"} },
		"network":       func(_ *sandbox.Spec, x *podspec.Extras) { x.Network += "x" },
		"runtime class": func(_ *sandbox.Spec, x *podspec.Extras) { class := "NEW"; x.Pod.RuntimeClassName = &class },
		"node selector": func(_ *sandbox.Spec, x *podspec.Extras) { x.Pod.NodeSelector = map[string]string{"NEW": "x"} },
		"priority":      func(_ *sandbox.Spec, x *podspec.Extras) { x.Pod.PriorityClassName += "x" },
		"pull policy":   func(_ *sandbox.Spec, x *podspec.Extras) { x.Pod.Containers[0].ImagePullPolicy += "x" },
	}
	ofAgent := map[string]func(*sandbox.Spec){
		"workspace": func(s *sandbox.Spec) { s.Workspace = "/other" },
		"key":       func(s *sandbox.Spec) { s.BootstrapKey += "x" },
		"preload":   func(s *sandbox.Spec) { s.Preload = append(s.Preload, "x") },
	}
	rapid.Check(t, func(r *rapid.T) {
		spec := anySpec(r)
		before, _ := copied(spec)
		first := pool(r, b, spec)
		if diff := cmp.Diff(before, spec); diff != "" {
			r.Errorf("Build changed what it was given:\n%s", diff)
		}
		again, err := podspec.NewBuilder(settings())
		if err != nil {
			r.Fatal(err)
		}
		if got := pool(r, again, before); got != first {
			r.Errorf("pools of the same spec are %s and %s", first, got)
		}
		for what, change := range same {
			s, _ := copied(spec)
			if change(&s); pool(r, b, s) != first {
				r.Errorf("pool changes with %s", what)
			}
		}
		for what, change := range other {
			s, x := copied(spec)
			if change(&s, x); pool(r, b, s) == first {
				r.Errorf("pool does not change with %s", what)
			}
		}
		for what, change := range ofAgent {
			s, x := copied(spec)
			if change(&s); (pool(r, b, s) == first) == x.Agent {
				r.Errorf("pool of a template whose agent is %v, and %s: wrong", x.Agent, what)
			}
		}
	})
}

// TestWorkspaceMounted: what a Pod mounts already is not mounted twice.
func TestWorkspaceMounted(t *testing.T) {
	for i, at := range []string{"/data", "/data/", "/data/."} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			c := corev1.Container{Name: "c", Image: "x", VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: at}}}
			x := &podspec.Extras{Agent: true, Pod: corev1.PodSpec{Containers: []corev1.Container{c}}}
			pod, err := newBuilder(t).Build(sandbox.Spec{Workspace: "/data", Extras: x})
			if err != nil {
				t.Fatal(err)
			}
			if mounts := pod.Spec.Containers[0].VolumeMounts; len(mounts) != 2 || mounts[0].Name != "own" || len(pod.Spec.Volumes) != 1 {
				t.Errorf("mounts are %v of volumes %v, want the Pod's own and the agent's", mounts, pod.Spec.Volumes)
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		spec sandbox.Spec
		want error
	}{
		"foreign extras":     {sandbox.Spec{Extras: 1}, sandbox.ErrInvalidSpec},
		"no container":       {sandbox.Spec{Extras: &podspec.Extras{}}, sandbox.ErrInvalidSpec},
		"workspace on agent": {sandbox.Spec{Image: "x", Workspace: "/.agentcube"}, sandbox.ErrBadTemplate},
		"workspace in agent": {sandbox.Spec{Image: "x", Workspace: "/a/../.agentcube/b"}, sandbox.ErrBadTemplate},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newBuilder(t).Build(test.spec); !errors.Is(err, test.want) {
				t.Errorf("Build = %v, want %v", err, test.want)
			}
		})
	}
}

// TestAlwaysLimited: no container of a Pod is without limits.
func TestAlwaysLimited(t *testing.T) {
	for name, spec := range map[string]sandbox.Spec{
		"nothing said": {Image: "x"},
		"many containers": {Extras: &podspec.Extras{Pod: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "i"}}, Containers: []corev1.Container{{Name: "a"}, {Name: "b"}},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			pod, err := newBuilder(t).Build(spec)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				if limits := c.Resources.Limits; limits.Cpu().IsZero() || limits.Memory().IsZero() {
					t.Errorf("limits of %s are %v", c.Name, limits)
				}
			}
		})
	}
}
