package install

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// TestInstalled: one installation, used in many ways. At its end nothing is left.
func TestInstalled(t *testing.T) {
	w := startWorld(t)
	token := w.account(t, "default", "alice", true)
	t.Run("Anywhere", func(t *testing.T) { w.anywhere(t) })
	t.Run("InPod", func(t *testing.T) { w.inPod(t) })
	t.Run("Owners", func(t *testing.T) { w.owners(t, token) })
	t.Run("Audit", func(t *testing.T) { w.audited(t, token) })
	t.Run("Telemetry", func(t *testing.T) { w.telemetry(t, token) })
	t.Run("GVisor", func(t *testing.T) { w.gvisor(t, token) })
	t.Run("Faults", func(t *testing.T) { w.faults(t, token) })
	t.Run("Figures", func(t *testing.T) { w.figures(t, token) })
	t.Run("Encrypted", func(t *testing.T) { w.encrypted(t, token) })
	t.Run("NothingLeft", func(t *testing.T) { w.left(t, token) })
}

// template makes a CodeInterpreter.
func (w *world) template(t *testing.T, namespace, name string, spec object) {
	t.Helper()
	text, err := json.Marshal(object{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": api.KindCodeInterpreter,
		"metadata": object{"name": name, "namespace": namespace}, "spec": spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.apply(t, text, "")
}

// apply makes a template from its text, as JSON or YAML, or changes it. Unless it is "",
// class is the runtime class of its Pods.
func (w *world) apply(t *testing.T, text []byte, class string) {
	t.Helper()
	var u unstructured.Unstructured
	if err := yaml.Unmarshal(text, &u.Object); err != nil {
		t.Fatal(err)
	}
	namespace := cmp.Or(u.GetNamespace(), "default")
	if _, err := w.client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{}); err != nil {
		if _, err := w.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if class != "" {
		of := []string{"spec", "template", "runtimeClassName"}
		if u.GetKind() == api.KindAgentRuntime {
			of = []string{"spec", "podTemplate", "spec", "runtimeClassName"}
		}
		if err := unstructured.SetNestedField(u.Object, class, of...); err != nil {
			t.Fatal(err)
		}
	}
	resource := w.dynamic.Resource(kubetemplate.Resources()[u.GetKind()]).Namespace(namespace)
	if _, err := resource.Apply(t.Context(), u.GetName(), &u, metav1.ApplyOptions{FieldManager: "tests", Force: true}); err != nil {
		t.Fatalf("apply %s: %v", u.GetName(), err)
	}
}

// inPod: an SDK that runs in a Pod finds its token by itself.
func (w *world) inPod(t *testing.T) {
	w.account(t, "default", "agent", true)
	hostPath := func(name, path string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}}
	}
	packages, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(places.interpreter)), "lib", "python3*", "site-packages"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("packages of %s: %q, %v", places.interpreter, packages, err)
	}
	seconds := int64(600)
	in := func(service string) string { return "http://" + service + "." + release + ".svc:8080" }
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "agent", RestartPolicy: corev1.RestartPolicyNever,
			Volumes: []corev1.Volume{
				hostPath("sdk", places.sdk), hostPath("packages", packages[0]),
				{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
					ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: &seconds, Path: "token"},
				}}}}},
			},
			Containers: []corev1.Container{{
				Name: "main", Image: pythonImage, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: []string{"python3", "-c", "from agentcube import CodeInterpreterClient\nwith CodeInterpreterClient() as c:\n    print(c.execute_command('whoami'), c.run_code('python', 'print(6*7)'))\n"},
				Env: []corev1.EnvVar{
					{Name: "PYTHONPATH", Value: "/sdk:/packages"}, {Name: "PYTHONDONTWRITEBYTECODE", Value: "1"},
					{Name: "WORKLOAD_MANAGER_URL", Value: in("workloadmanager")}, {Name: "ROUTER_URL", Value: in("agentcube-router")},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "sdk", MountPath: "/sdk", ReadOnly: true}, {Name: "packages", MountPath: "/packages", ReadOnly: true},
					{Name: "token", MountPath: "/var/run/secrets/agentcube", ReadOnly: true},
				},
			}},
		},
	}
	if _, err := w.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var phase corev1.PodPhase
	await(t, "the agent's Pod", func() (bool, error) {
		p, err := w.client.CoreV1().Pods("default").Get(t.Context(), "agent", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		phase = p.Status.Phase
		return phase == corev1.PodSucceeded || phase == corev1.PodFailed, errors.New(string(phase))
	})
	text, err := w.client.CoreV1().Pods("default").GetLogs("agent", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if phase != corev1.PodSucceeded {
		t.Errorf("the agent ended as %s", phase)
	}
	mustContain(t, "what the agent printed", string(text), "42")
}

// owners: nobody sees or uses another's session, and who may not use a template does
// not get one.
func (w *world) owners(t *testing.T, token string) {
	alice := w.as(t, token)
	s := w.create(t, alice, client.CreateOptions{})
	mallory := w.as(t, w.account(t, "default", "mallory", true))
	if _, err := mallory.GetSession(t.Context(), s.ID); code(err) != api.CodeSessionNotFound {
		t.Errorf("another sees the session: %v", err)
	}
	if err := mallory.DeleteSession(t.Context(), s.ID); code(err) != api.CodeSessionNotFound {
		t.Errorf("another deletes the session: %v", err)
	}
	managed := w.create(t, alice, client.CreateOptions{Managed: true})
	if _, err := mallory.Attach(t.Context(), managed.ID, nil); code(err) != api.CodeSessionNotFound {
		t.Errorf("another attaches to a managed session: %v", err)
	}
	for name, other := range map[string]string{
		"without rights":   w.account(t, "default", "eve", false),
		"another audience": w.token(t, "default", "alice", "https://kubernetes.default.svc"),
		"not a token":      "x.y.z",
		"a forged one":     forged(token),
		"no token":         "",
	} {
		_, err := w.as(t, other).CreateSession(t.Context(), client.CreateOptions{})
		want := api.CodeUnauthorized
		if name == "without rights" {
			want = api.CodeForbidden
		}
		if code(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// forged is a token that says another account, with the signature of the first.
func forged(token string) string {
	parts := strings.Split(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err.Error()
	}
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(string(claims), "alice", "admin")))
	return strings.Join(parts, ".")
}

func code(err error) api.Code {
	if e, ok := errors.AsType[*client.APIError](err); ok {
		return e.Code
	}
	return ""
}

// create makes a session that ends with the test.
func (w *world) create(t *testing.T, c *client.Client, o client.CreateOptions) *client.Session {
	t.Helper()
	began := time.Now()
	s, err := c.CreateSession(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("session %s was there after %v", s.ID, time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() { w.remove(t, c, s.ID) })
	return s
}

func (w *world) remove(t *testing.T, c *client.Client, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.DeleteSession(ctx, id); err != nil && code(err) != api.CodeSessionEnded {
		t.Errorf("delete %s: %v", id, err)
	}
}

// gvisor: a template with the runtime class gVisor has that isolation, and says so.
func (w *world) gvisor(t *testing.T, token string) {
	w.template(t, "default", "isolated", object{"isolation": "gvisor", "template": object{"runtimeClassName": cluster.GVisor}})
	w.template(t, "default", "not-isolated", object{"isolation": "gvisor", "template": object{}})
	c := w.as(t, token)
	var s *client.Session
	await(t, "the template", func() (bool, error) {
		var err error
		s, err = c.CreateSession(t.Context(), client.CreateOptions{Template: "isolated"})
		return err == nil, err
	})
	defer w.remove(t, c, s.ID)
	rec, err := c.GetSession(t.Context(), s.ID)
	if err != nil || rec.Isolation != "gvisor" {
		t.Errorf("isolation is %q, %v", rec.Isolation, err)
	}
	out, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"dmesg"}})
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, "dmesg", string(out.Stdout), "gVisor")
	if _, err := c.CreateSession(t.Context(), client.CreateOptions{Template: "not-isolated"}); code(err) != api.CodeIsolation {
		t.Errorf("a template that demands gVisor and has none: %v", err)
	}
}
